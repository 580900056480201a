#include "sidecar/tls/test_ca.h"

#include <openssl/base.h>
#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include <atomic>

#include "sidecar/base/check.h"
#include "sidecar/tls/keys.h"

namespace weft::tls {
namespace {

bssl::UniquePtr<BIO> Memory(std::string_view s) {
  return bssl::UniquePtr<BIO>(BIO_new_mem_buf(s.data(), static_cast<ossl_ssize_t>(s.size())));
}
std::string Drain(BIO* bio) {
  const uint8_t* data;
  size_t size;
  WEFT_CHECK(BIO_mem_contents(bio, &data, &size));
  return std::string(reinterpret_cast<const char*>(data), size);
}
bssl::UniquePtr<X509> ReadCert(std::string_view pem) {
  auto bio = Memory(pem);
  bssl::UniquePtr<X509> x(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
  WEFT_CHECK(x);
  return x;
}
bssl::UniquePtr<EVP_PKEY> ReadKey(std::string_view pem) {
  auto bio = Memory(pem);
  bssl::UniquePtr<EVP_PKEY> k(PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr));
  WEFT_CHECK(k);
  return k;
}
std::string CertPem(X509* x) {
  bssl::UniquePtr<BIO> out(BIO_new(BIO_s_mem()));
  WEFT_CHECK(PEM_write_bio_X509(out.get(), x));
  return Drain(out.get());
}

std::string NewKeyPem(IssueOptions::Key kind) {
  if (kind == IssueOptions::kP256) return *NewP256KeyPem();
  bssl::UniquePtr<RSA> rsa(RSA_new());
  bssl::UniquePtr<BIGNUM> e(BN_new());
  bssl::UniquePtr<EVP_PKEY> key(EVP_PKEY_new());
  WEFT_CHECK(BN_set_word(e.get(), RSA_F4) &&
             RSA_generate_key_ex(rsa.get(), kind == IssueOptions::kRsa1024 ? 1024 : 2048, e.get(), nullptr) &&
             EVP_PKEY_set1_RSA(key.get(), rsa.get()));
  bssl::UniquePtr<BIO> out(BIO_new(BIO_s_mem()));
  WEFT_CHECK(PEM_write_bio_PKCS8PrivateKey(out.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr));
  return Drain(out.get());
}

void AddExtension(X509* x, int nid, const std::string& value) {
  X509V3_CTX ctx;
  X509V3_set_ctx(&ctx, x, x, nullptr, nullptr, 0);
  bssl::UniquePtr<X509_EXTENSION> e(X509V3_EXT_nconf_nid(nullptr, &ctx, nid, value.c_str()));
  WEFT_CHECK(e && X509_add_ext(x, e.get(), -1), value);
}

GENERAL_NAME* Name(int type, const std::string& text) {
  GENERAL_NAME* n = GENERAL_NAME_new();
  ASN1_IA5STRING* s = ASN1_IA5STRING_new();
  WEFT_CHECK(n && s && ASN1_STRING_set(s, text.data(), static_cast<ossl_ssize_t>(text.size())));
  n->type = type, n->d.ia5 = s;
  return n;
}

void SetName(X509_NAME* name, const std::string& cn) {
  WEFT_CHECK(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, reinterpret_cast<const uint8_t*>(cn.data()),
                                        static_cast<ossl_ssize_t>(cn.size()), -1, 0));
}

// issuer null: self-signed.
bssl::UniquePtr<X509> Make(EVP_PKEY* public_key, X509* issuer, EVP_PKEY* issuer_key, const IssueOptions& o, int64_t now) {
  static std::atomic<uint64_t> serial{0x1000};
  bssl::UniquePtr<X509> x(X509_new());
  WEFT_CHECK(X509_set_version(x.get(), X509_VERSION_3) &&
             ASN1_INTEGER_set_uint64(X509_get_serialNumber(x.get()), ++serial) &&
             ASN1_TIME_set_posix(X509_getm_notBefore(x.get()), now + o.not_before_s) &&
             ASN1_TIME_set_posix(X509_getm_notAfter(x.get()), now + o.not_after_s) && X509_set_pubkey(x.get(), public_key));
  if (!o.common_name.empty()) SetName(X509_get_subject_name(x.get()), o.common_name);
  WEFT_CHECK(X509_set_issuer_name(x.get(), X509_get_subject_name(issuer ? issuer : x.get())));
  std::string basic = o.ca ? "critical,CA:TRUE" : "critical,CA:FALSE";
  if (o.ca && o.path_length >= 0) basic += ",pathlen:" + std::to_string(o.path_length);
  AddExtension(x.get(), NID_basic_constraints, basic);
  if (!o.key_usage.empty()) AddExtension(x.get(), NID_key_usage, o.key_usage);
  if (!o.extended_key_usage.empty() && !o.ca) AddExtension(x.get(), NID_ext_key_usage, o.extended_key_usage);
  if (!o.uris.empty() || !o.dns.empty()) {
    bssl::UniquePtr<GENERAL_NAMES> names(sk_GENERAL_NAME_new_null());
    for (auto& u : o.uris) sk_GENERAL_NAME_push(names.get(), Name(GEN_URI, u));
    for (auto& d : o.dns) sk_GENERAL_NAME_push(names.get(), Name(GEN_DNS, d));
    WEFT_CHECK(X509_add1_ext_i2d(x.get(), NID_subject_alt_name, names.get(), o.common_name.empty(), 0));
  }
  if (!o.extra_critical_oid.empty()) {
    bssl::UniquePtr<ASN1_OBJECT> oid(OBJ_txt2obj(o.extra_critical_oid.c_str(), 1));
    bssl::UniquePtr<ASN1_OCTET_STRING> value(ASN1_OCTET_STRING_new());
    WEFT_CHECK(ASN1_OCTET_STRING_set(value.get(), reinterpret_cast<const uint8_t*>("\x05\x00"), 2));
    bssl::UniquePtr<X509_EXTENSION> e(X509_EXTENSION_create_by_OBJ(nullptr, oid.get(), 1, value.get()));
    WEFT_CHECK(e && X509_add_ext(x.get(), e.get(), -1));
  }
  WEFT_CHECK(X509_sign(x.get(), issuer_key, o.sha1 ? EVP_sha1() : EVP_sha256()));
  return x;
}

}  // namespace

TestCa::TestCa(std::string name, base::Clock* clock) : clock_(clock) {
  key_pem_ = *NewP256KeyPem();
  auto key = ReadKey(key_pem_);
  IssueOptions o;
  o.common_name = std::move(name), o.ca = true, o.key_usage = "critical,keyCertSign,cRLSign";
  o.not_before_s = -86400 * 30, o.not_after_s = 86400 * 365;
  cert_pem_ = root_pem_ =
      CertPem(Make(key.get(), nullptr, key.get(), o, static_cast<int64_t>(clock_->UnixNs() / base::kSecond)).get());
}

TestCert TestCa::Issue(const IssueOptions& options) const {
  TestCert out;
  out.key_pem = NewKeyPem(options.key);
  auto key = ReadKey(out.key_pem), ca_key = ReadKey(key_pem_);
  auto issuer = ReadCert(cert_pem_);
  out.chain_pem = CertPem(Make(key.get(), issuer.get(), ca_key.get(), options,
                               static_cast<int64_t>(clock_->UnixNs() / base::kSecond)).get()) + chain_tail_;
  return out;
}

TestCa TestCa::Intermediate(const IssueOptions& options) const {
  TestCert cert = Issue(options);
  TestCa ca{Empty{}};
  ca.clock_ = clock_;
  ca.root_pem_ = root_pem_;
  ca.cert_pem_ = ca.chain_tail_ = cert.chain_pem;
  ca.key_pem_ = cert.key_pem;
  return ca;
}

std::string TestCa::SignCsr(std::string_view csr_der, const std::string& spiffe_id, int64_t not_after_s) const {
  const uint8_t* p = reinterpret_cast<const uint8_t*>(csr_der.data());
  bssl::UniquePtr<X509_REQ> req(d2i_X509_REQ(nullptr, &p, static_cast<long>(csr_der.size())));
  if (!req) return {};
  bssl::UniquePtr<EVP_PKEY> key(X509_REQ_get_pubkey(req.get()));
  if (!key || X509_REQ_verify(req.get(), key.get()) != 1) return {};
  auto ca_key = ReadKey(key_pem_);
  auto issuer = ReadCert(cert_pem_);
  IssueOptions o;
  o.uris = {spiffe_id}, o.not_after_s = not_after_s;
  return CertPem(Make(key.get(), issuer.get(), ca_key.get(), o,
                      static_cast<int64_t>(clock_->UnixNs() / base::kSecond)).get()) + chain_tail_;
}

std::string TestCa::Crl(const std::vector<std::string>& revoked_chains) const {
  bssl::UniquePtr<X509_CRL> crl(X509_CRL_new());
  auto ca_key = ReadKey(key_pem_);
  auto issuer = ReadCert(cert_pem_);
  bssl::UniquePtr<ASN1_TIME> t(ASN1_TIME_new());
  int64_t now = static_cast<int64_t>(clock_->UnixNs() / base::kSecond);
  WEFT_CHECK(X509_CRL_set_version(crl.get(), X509_CRL_VERSION_2) &&
             X509_CRL_set_issuer_name(crl.get(), X509_get_subject_name(issuer.get())) &&
             ASN1_TIME_set_posix(t.get(), now - 60) && X509_CRL_set1_lastUpdate(crl.get(), t.get()) &&
             ASN1_TIME_set_posix(t.get(), now + 86400) && X509_CRL_set1_nextUpdate(crl.get(), t.get()));
  for (auto& chain : revoked_chains) {
    auto leaf = ReadCert(chain);
    X509_REVOKED* r = X509_REVOKED_new();
    WEFT_CHECK(r && X509_REVOKED_set_serialNumber(r, X509_get_serialNumber(leaf.get())) &&
               ASN1_TIME_set_posix(t.get(), now - 30) && X509_REVOKED_set_revocationDate(r, t.get()) &&
               X509_CRL_add0_revoked(crl.get(), r));
  }
  WEFT_CHECK(X509_CRL_sort(crl.get()) && X509_CRL_sign(crl.get(), ca_key.get(), EVP_sha256()));
  bssl::UniquePtr<BIO> out(BIO_new(BIO_s_mem()));
  WEFT_CHECK(PEM_write_bio_X509_CRL(out.get(), crl.get()));
  return Drain(out.get());
}

}  // namespace weft::tls
