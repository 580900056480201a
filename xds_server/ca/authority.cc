#include "xds_server/ca/authority.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>

namespace weft::server {
namespace {

using base::Error;

template <typename T, void (*F)(T*)>
struct Freer {
  void operator()(T* p) const { F(p); }
};
void FreeBio(BIO* b) { BIO_free_all(b); }
using PkeyPtr = std::unique_ptr<EVP_PKEY, Freer<EVP_PKEY, EVP_PKEY_free>>;
using X509Ptr = std::unique_ptr<X509, Freer<X509, X509_free>>;
using ReqPtr = std::unique_ptr<X509_REQ, Freer<X509_REQ, X509_REQ_free>>;
using BioPtr = std::unique_ptr<BIO, Freer<BIO, FreeBio>>;

std::string OpenSslError() {
  char buf[200] = "unknown";
  if (unsigned long e = ERR_get_error()) ERR_error_string_n(e, buf, sizeof buf);
  ERR_clear_error();
  return buf;
}

std::string BioText(BIO* bio) {
  char* data = nullptr;
  long n = BIO_get_mem_data(bio, &data);
  return std::string(data, static_cast<size_t>(n));
}

std::string ToPem(X509* cert) {
  BioPtr bio(BIO_new(BIO_s_mem()));
  PEM_write_bio_X509(bio.get(), cert);
  return BioText(bio.get());
}

std::string ToPem(EVP_PKEY* key) {
  BioPtr bio(BIO_new(BIO_s_mem()));
  PEM_write_bio_PKCS8PrivateKey(bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr);
  return BioText(bio.get());
}

PkeyPtr NewKey() { return PkeyPtr(EVP_EC_gen("P-256")); }

bool IsP256(EVP_PKEY* key) {
  if (EVP_PKEY_get_base_id(key) != EVP_PKEY_EC) return false;
  char group[64] = "";
  size_t n = 0;
  return EVP_PKEY_get_group_name(key, group, sizeof group, &n) == 1 &&
         (strcmp(group, "prime256v1") == 0 || strcmp(group, "P-256") == 0);
}

std::string SpkiSha256(X509* cert) {
  unsigned char* der = nullptr;
  int n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &der);
  std::string data(reinterpret_cast<char*>(der), n > 0 ? static_cast<size_t>(n) : 0);
  OPENSSL_free(der);
  return Sha256Hex(data);
}

void AddExtension(X509* cert, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX ctx;
  X509V3_set_ctx_nodb(&ctx);
  X509V3_set_ctx(&ctx, issuer, cert, nullptr, nullptr, 0);
  X509_EXTENSION* ext = X509V3_EXT_conf_nid(nullptr, &ctx, nid, value.c_str());
  if (ext) X509_add_ext(cert, ext, -1);
  X509_EXTENSION_free(ext);
}

void SetBasics(X509* cert, int64_t not_before, int64_t not_after) {
  X509_set_version(cert, 2);
  unsigned char serial[16];
  RAND_bytes(serial, sizeof serial);
  serial[0] = (serial[0] & 0x7f) | 0x40;  // positive and full length
  BIGNUM* n = BN_bin2bn(serial, sizeof serial, nullptr);
  BN_to_ASN1_INTEGER(n, X509_get_serialNumber(cert));
  BN_free(n);
  ASN1_TIME_set(X509_getm_notBefore(cert), not_before);
  ASN1_TIME_set(X509_getm_notAfter(cert), not_after);
}

// Written beside the final name first: a crash leaves no half file.
bool WriteFile(const std::string& path, const std::string& text, mode_t mode) {
  const std::string temp = path + ".new";
  unlink(temp.c_str());
  int fd = open(temp.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (fd < 0) return false;
  bool ok = write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) && fsync(fd) == 0;
  ok = close(fd) == 0 && ok;
  return ok && rename(temp.c_str(), path.c_str()) == 0;
}

std::string ReadFile(const std::string& path) {
  std::ifstream in(path);
  std::stringstream s;
  s << in.rdbuf();
  return s.str();
}

int64_t UnixTime(const ASN1_TIME* t) {
  tm out{};
  return ASN1_TIME_to_tm(t, &out) ? timegm(&out) : 0;
}

}  // namespace

struct Authority::Keys {
  PkeyPtr key;
  X509Ptr cert;
};

Authority::~Authority() = default;

base::Result<std::unique_ptr<Authority>> Authority::Open(const Options& options, int64_t now) {
  std::unique_ptr<Authority> a(new Authority);
  a->options_ = options;
  a->keys_ = std::make_unique<Keys>();
  if (mkdir(options.directory.c_str(), 0700) != 0 && errno != EEXIST) {
    return Error("cannot make " + options.directory + ": " + strerror(errno));
  }
  const std::string key_path = options.directory + "/root.key", cert_path = options.directory + "/root.crt";
  const std::string uri = "spiffe://" + options.trust_domain;
  if (access(key_path.c_str(), F_OK) == 0 && access(cert_path.c_str(), F_OK) == 0) {
    const std::string key_pem = ReadFile(key_path), cert_pem = ReadFile(cert_path);
    BioPtr kb(BIO_new_mem_buf(key_pem.data(), static_cast<int>(key_pem.size())));
    BioPtr cb(BIO_new_mem_buf(cert_pem.data(), static_cast<int>(cert_pem.size())));
    a->keys_->key.reset(PEM_read_bio_PrivateKey(kb.get(), nullptr, nullptr, nullptr));
    a->keys_->cert.reset(PEM_read_bio_X509(cb.get(), nullptr, nullptr, nullptr));
    if (!a->keys_->key || !a->keys_->cert) return Error("cannot read the root in " + options.directory + ": " + OpenSslError());
    if (X509_check_private_key(a->keys_->cert.get(), a->keys_->key.get()) != 1) {
      return Error("root.key and root.crt in " + options.directory + " do not belong together");
    }
    GENERAL_NAMES* names = static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(a->keys_->cert.get(), NID_subject_alt_name, nullptr, nullptr));
    bool fits = false;
    for (int i = 0; i < sk_GENERAL_NAME_num(names); ++i) {
      const GENERAL_NAME* g = sk_GENERAL_NAME_value(names, i);
      if (g->type != GEN_URI) continue;
      const ASN1_IA5STRING* s = g->d.uniformResourceIdentifier;
      fits = fits || uri == std::string(reinterpret_cast<const char*>(ASN1_STRING_get0_data(s)), static_cast<size_t>(ASN1_STRING_length(s)));
    }
    GENERAL_NAMES_free(names);
    if (!fits) return Error("the root in " + options.directory + " is not of the trust domain " + options.trust_domain);
  } else {
    PkeyPtr key = NewKey();
    X509Ptr cert(X509_new());
    SetBasics(cert.get(), now - 300, now + int64_t{3652} * 86400);
    X509_set_pubkey(cert.get(), key.get());
    X509_NAME* name = X509_get_subject_name(cert.get());
    X509_NAME_add_entry_by_txt(name, "O", MBSTRING_UTF8, reinterpret_cast<const unsigned char*>("Weft"), -1, -1, 0);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, reinterpret_cast<const unsigned char*>("Weft root"), -1, -1, 0);
    X509_set_issuer_name(cert.get(), name);
    AddExtension(cert.get(), cert.get(), NID_basic_constraints, "critical,CA:TRUE,pathlen:0");
    AddExtension(cert.get(), cert.get(), NID_key_usage, "critical,keyCertSign,cRLSign");
    AddExtension(cert.get(), cert.get(), NID_subject_key_identifier, "hash");
    AddExtension(cert.get(), cert.get(), NID_subject_alt_name, "URI:" + uri);
    if (!X509_sign(cert.get(), key.get(), EVP_sha256())) return Error("cannot sign the root: " + OpenSslError());
    if (!WriteFile(key_path, ToPem(key.get()), 0600) || !WriteFile(cert_path, ToPem(cert.get()), 0644)) {
      return Error("cannot write the root to " + options.directory + ": " + strerror(errno));
    }
    a->keys_->key = std::move(key), a->keys_->cert = std::move(cert);
  }
  a->bundle_pem_ = ToPem(a->keys_->cert.get());
  a->root_hash_ = SpkiSha256(a->keys_->cert.get());
  return a;
}

base::Result<Certificate> Authority::Sign(void* public_key, const std::string& spiffe_id, const std::vector<std::string>& dns_names,
                                          int64_t lifetime_s, int64_t now) const {
  X509Ptr cert(X509_new());
  Certificate out;
  out.spiffe_id = spiffe_id;
  out.not_before_unix_s = now - 60;
  out.not_after_unix_s = std::min(now + lifetime_s, UnixTime(X509_get0_notAfter(keys_->cert.get())));
  SetBasics(cert.get(), out.not_before_unix_s, out.not_after_unix_s);
  X509_set_pubkey(cert.get(), static_cast<EVP_PKEY*>(public_key));
  X509_NAME* name = X509_get_subject_name(cert.get());
  X509_NAME_add_entry_by_txt(name, "O", MBSTRING_UTF8, reinterpret_cast<const unsigned char*>("Weft"), -1, -1, 0);
  X509_set_issuer_name(cert.get(), X509_get_subject_name(keys_->cert.get()));
  X509* issuer = keys_->cert.get();
  AddExtension(cert.get(), issuer, NID_basic_constraints, "critical,CA:FALSE");
  AddExtension(cert.get(), issuer, NID_key_usage, "critical,digitalSignature");
  AddExtension(cert.get(), issuer, NID_ext_key_usage, "serverAuth,clientAuth");
  AddExtension(cert.get(), issuer, NID_subject_key_identifier, "hash");
  AddExtension(cert.get(), issuer, NID_authority_key_identifier, "keyid");
  std::string san = "URI:" + spiffe_id;
  for (const std::string& d : dns_names) san += ",DNS:" + d;
  AddExtension(cert.get(), issuer, NID_subject_alt_name, san);
  if (X509_get_ext_by_NID(cert.get(), NID_subject_alt_name, -1) < 0 || !X509_sign(cert.get(), keys_->key.get(), EVP_sha256())) {
    return Error("cannot sign: " + OpenSslError());
  }
  out.chain_pem = ToPem(cert.get());
  return out;
}

base::Result<Certificate> Authority::SignRequest(const std::string& csr_der, const Name& service, int64_t now) const {
  if (csr_der.empty() || csr_der.size() > 8192) return Error("the certificate request is empty or larger than 8 KiB");
  if (!IsDnsLabel(service.ns) || !IsDnsLabel(service.name)) return Error("not a service name");
  const auto* p = reinterpret_cast<const unsigned char*>(csr_der.data());
  ReqPtr req(d2i_X509_REQ(nullptr, &p, static_cast<long>(csr_der.size())));
  if (!req || p != reinterpret_cast<const unsigned char*>(csr_der.data()) + csr_der.size()) {
    ERR_clear_error();
    return Error("not a PKCS#10 certificate request in DER");
  }
  PkeyPtr key(X509_REQ_get_pubkey(req.get()));
  if (!key || !IsP256(key.get())) {
    ERR_clear_error();
    return Error("the key in the certificate request must be P-256");
  }
  if (X509_REQ_verify(req.get(), key.get()) != 1) {
    ERR_clear_error();
    return Error("the signature of the certificate request is wrong");
  }
  return Sign(key.get(), SpiffeId(options_.trust_domain, service), {}, options_.leaf_seconds, now);
}

base::Result<Authority::KeyPair> Authority::MakeServerPair(const std::vector<std::string>& dns_names, int64_t now) const {
  PkeyPtr key = NewKey();
  if (!key) return Error("cannot make a key: " + OpenSslError());
  auto cert = Sign(key.get(), SpiffeId(options_.trust_domain, {"weft-system", "xds"}), dns_names, kServerSeconds, now);
  if (!cert) return std::move(cert.error());
  return KeyPair{ToPem(key.get()), std::move(*cert)};
}

std::string Sha256Hex(std::string_view data) {
  unsigned char md[EVP_MAX_MD_SIZE];
  unsigned int n = 0;
  EVP_Digest(data.data(), data.size(), md, &n, EVP_sha256(), nullptr);
  std::string out;
  char buf[3];
  for (unsigned int i = 0; i < n; ++i) {
    snprintf(buf, sizeof buf, "%02x", md[i]);
    out += buf;
  }
  return out;
}

std::string RandomHex(size_t bytes) {
  std::string raw(bytes, '\0'), out;
  RAND_bytes(reinterpret_cast<unsigned char*>(raw.data()), static_cast<int>(bytes));
  char buf[3];
  for (char c : raw) {
    snprintf(buf, sizeof buf, "%02x", static_cast<unsigned char>(c));
    out += buf;
  }
  return out;
}

std::pair<std::string, std::string> MakeKeyAndRequest() {
  PkeyPtr key = NewKey();
  ReqPtr req(X509_REQ_new());
  X509_REQ_set_version(req.get(), 0);
  X509_REQ_set_pubkey(req.get(), key.get());
  X509_REQ_sign(req.get(), key.get(), EVP_sha256());
  unsigned char* der = nullptr;
  int n = i2d_X509_REQ(req.get(), &der);
  std::string csr(reinterpret_cast<char*>(der), n > 0 ? static_cast<size_t>(n) : 0);
  OPENSSL_free(der);
  return {ToPem(key.get()), csr};
}

}  // namespace weft::server
