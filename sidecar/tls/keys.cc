#include "sidecar/tls/keys.h"

#include <openssl/base.h>
#include <openssl/bio.h>
#include <openssl/bytestring.h>
#include <openssl/ec.h>
#include <openssl/ec_key.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/pem.h>
#include <openssl/sha.h>
#include <openssl/x509.h>

#include "sidecar/base/str.h"

namespace weft::tls {
namespace {

using base::Cat;
using base::Error;

Error LibraryError(std::string_view what) {
  uint32_t code = ERR_peek_last_error();
  const char* reason = ERR_reason_error_string(code);
  ERR_clear_error();
  return Error(Cat(what, reason ? ": " : "", reason ? reason : ""));
}

bssl::UniquePtr<BIO> Memory(std::string_view s) {
  return bssl::UniquePtr<BIO>(BIO_new_mem_buf(s.data(), static_cast<ossl_ssize_t>(s.size())));
}

std::string Drain(BIO* bio) {
  const uint8_t* data;
  size_t size;
  if (!BIO_mem_contents(bio, &data, &size)) return {};
  return std::string(reinterpret_cast<const char*>(data), size);
}

bssl::UniquePtr<EVP_PKEY> ReadKey(std::string_view pem) {
  auto bio = Memory(pem);
  return bssl::UniquePtr<EVP_PKEY>(PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr));
}

std::string NameText(const X509_NAME* name) {
  bssl::UniquePtr<BIO> out(BIO_new(BIO_s_mem()));
  X509_NAME_print_ex(out.get(), name, 0, XN_FLAG_RFC2253);
  return Drain(out.get());
}

base::Result<CertInfo> Describe(X509* x, std::string_view der) {
  CertInfo info;
  int critical;
  bssl::UniquePtr<GENERAL_NAMES> names(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(x, NID_subject_alt_name, &critical, nullptr)));
  if (!names && critical != -1) return LibraryError("subjectAltName is malformed");
  for (size_t i = 0; names && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* n = sk_GENERAL_NAME_value(names.get(), i);
    if (n->type != GEN_URI && n->type != GEN_DNS) continue;
    std::string text(reinterpret_cast<const char*>(ASN1_STRING_get0_data(n->d.ia5)),
                     static_cast<size_t>(ASN1_STRING_length(n->d.ia5)));
    (n->type == GEN_URI ? info.uri_sans : info.dns_sans).push_back(std::move(text));
  }
  if (info.uri_sans.size() == 1) info.spiffe_id = info.uri_sans[0];
  info.subject = NameText(X509_get_subject_name(x));
  info.issuer = NameText(X509_get_issuer_name(x));
  const ASN1_INTEGER* serial = X509_get0_serialNumber(x);
  info.serial_hex = base::Hex({reinterpret_cast<const char*>(ASN1_STRING_get0_data(serial)),
                               static_cast<size_t>(ASN1_STRING_length(serial))});
  info.sha256_hex = Sha256Hex(der);
  if (!ASN1_TIME_to_posix(X509_get0_notBefore(x), &info.not_before_unix_s) ||
      !ASN1_TIME_to_posix(X509_get0_notAfter(x), &info.not_after_unix_s)) {
    return LibraryError("validity is malformed");
  }
  info.is_ca = (X509_get_extension_flags(x) & EXFLAG_CA) != 0;
  return info;
}

}  // namespace

base::Result<std::string> NewP256KeyPem() {
  bssl::UniquePtr<EC_KEY> ec(EC_KEY_new_by_curve_name(NID_X9_62_prime256v1));
  bssl::UniquePtr<EVP_PKEY> key(EVP_PKEY_new());
  bssl::UniquePtr<BIO> out(BIO_new(BIO_s_mem()));
  if (!ec || !key || !out || !EC_KEY_generate_key(ec.get()) || !EVP_PKEY_set1_EC_KEY(key.get(), ec.get()) ||
      !PEM_write_bio_PKCS8PrivateKey(out.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr)) {
    return LibraryError("cannot make a key");
  }
  return Drain(out.get());
}

base::Result<std::string> MakeCsrDer(std::string_view private_key_pem, std::string_view spiffe_id) {
  auto key = ReadKey(private_key_pem);
  if (!key) return LibraryError("private key cannot be read");
  bssl::UniquePtr<X509_REQ> req(X509_REQ_new());
  if (!req || !X509_REQ_set_version(req.get(), X509_REQ_VERSION_1) || !X509_REQ_set_pubkey(req.get(), key.get())) {
    return LibraryError("cannot make a request");
  }
  if (!spiffe_id.empty()) {
    bssl::UniquePtr<GENERAL_NAMES> names(sk_GENERAL_NAME_new_null());
    bssl::UniquePtr<GENERAL_NAME> name(GENERAL_NAME_new());
    ASN1_IA5STRING* uri = ASN1_IA5STRING_new();
    if (!names || !name || !uri || !ASN1_STRING_set(uri, spiffe_id.data(), static_cast<ossl_ssize_t>(spiffe_id.size()))) {
      return LibraryError("cannot make a request");
    }
    name->type = GEN_URI;
    name->d.uniformResourceIdentifier = uri;
    bssl::PushToStack(names.get(), std::move(name));
    bssl::UniquePtr<STACK_OF(X509_EXTENSION)> extensions(sk_X509_EXTENSION_new_null());
    bssl::UniquePtr<X509_EXTENSION> san(X509V3_EXT_i2d(NID_subject_alt_name, /*crit=*/1, names.get()));
    if (!extensions || !san || !bssl::PushToStack(extensions.get(), std::move(san)) ||
        !X509_REQ_add_extensions(req.get(), extensions.get())) {
      return LibraryError("cannot make a request");
    }
  }
  const EVP_MD* digest = EVP_PKEY_id(key.get()) == EVP_PKEY_ED25519 ? nullptr : EVP_sha256();
  if (!X509_REQ_sign(req.get(), key.get(), digest)) return LibraryError("cannot sign the request");
  uint8_t* der = nullptr;
  int n = i2d_X509_REQ(req.get(), &der);
  if (n <= 0) return LibraryError("cannot encode the request");
  std::string out(reinterpret_cast<char*>(der), static_cast<size_t>(n));
  OPENSSL_free(der);
  return out;
}

std::string DerToPem(std::string_view label, std::string_view der) {
  bssl::UniquePtr<BIO> out(BIO_new(BIO_s_mem()));
  std::string name(label);
  PEM_write_bio(out.get(), name.c_str(), "", reinterpret_cast<const uint8_t*>(der.data()), static_cast<long>(der.size()));
  return Drain(out.get());
}

base::Result<std::vector<std::string>> PemToDer(std::string_view pem, std::string_view label) {
  auto bio = Memory(pem);
  std::vector<std::string> out;
  for (;;) {
    char *name = nullptr, *header = nullptr;
    uint8_t* data = nullptr;
    long size = 0;
    if (!PEM_read_bio(bio.get(), &name, &header, &data, &size)) {
      uint32_t code = ERR_peek_last_error();
      if (ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE) {
        ERR_clear_error();
        break;
      }
      return LibraryError("PEM is broken");
    }
    if (label == name) out.emplace_back(reinterpret_cast<char*>(data), static_cast<size_t>(size));
    OPENSSL_free(name), OPENSSL_free(header), OPENSSL_free(data);
  }
  if (out.empty()) return Error(Cat("no ", label, " block found"));
  return out;
}

base::Result<CertInfo> ParseCertDer(std::string_view der) {
  const uint8_t* p = reinterpret_cast<const uint8_t*>(der.data());
  bssl::UniquePtr<X509> x(d2i_X509(nullptr, &p, static_cast<long>(der.size())));
  if (!x) return LibraryError("certificate cannot be parsed");
  if (p != reinterpret_cast<const uint8_t*>(der.data()) + der.size()) return Error("certificate has trailing bytes");
  return Describe(x.get(), der);
}

base::Result<std::vector<CertInfo>> ParseBundlePem(std::string_view pem) {
  auto ders = PemToDer(pem, "CERTIFICATE");
  if (!ders) return std::move(ders.error());
  std::vector<CertInfo> out;
  for (const std::string& der : *ders) {
    auto info = ParseCertDer(der);
    if (!info) return std::move(info.error()).In(Cat("certificate ", out.size() + 1));
    out.push_back(*std::move(info));
  }
  return out;
}

base::Result<CertInfo> ParseLeafPem(std::string_view chain_pem) {
  auto ders = PemToDer(chain_pem, "CERTIFICATE");
  if (!ders) return std::move(ders.error());
  return ParseCertDer((*ders)[0]);
}

base::Status CheckKeyMatches(std::string_view private_key_pem, std::string_view chain_pem) {
  auto key = ReadKey(private_key_pem);
  if (!key) return LibraryError("private key cannot be read");
  auto bio = Memory(chain_pem);
  bssl::UniquePtr<X509> leaf(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
  if (!leaf) return LibraryError("certificate cannot be read");
  if (!X509_check_private_key(leaf.get(), key.get())) {
    ERR_clear_error();
    return Error("the private key does not belong to the certificate");
  }
  return base::Ok{};
}

std::string Sha256Hex(std::string_view bytes) {
  uint8_t digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), digest);
  return base::Hex({reinterpret_cast<char*>(digest), sizeof digest});
}

base::Result<std::string> SpkiSha256Hex(std::string_view certificate_pem) {
  auto blocks = PemToDer(certificate_pem, "CERTIFICATE");
  if (!blocks) return blocks.error();
  const std::string& der = blocks->front();
  const uint8_t* at = reinterpret_cast<const uint8_t*>(der.data());
  bssl::UniquePtr<X509> x(d2i_X509(nullptr, &at, static_cast<long>(der.size())));
  uint8_t* spki = nullptr;
  int n = x ? i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x.get()), &spki) : -1;
  if (n <= 0) return base::Error("certificate cannot be parsed");
  std::string hash = Sha256Hex({reinterpret_cast<char*>(spki), static_cast<size_t>(n)});
  OPENSSL_free(spki);
  return hash;
}

}  // namespace weft::tls
