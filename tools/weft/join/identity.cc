#include "tools/weft/join/identity.h"

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <memory>

#include "tools/weft/cli/error.h"

namespace weft::join {
namespace {

template <auto Free>
struct Deleter {
  template <typename T>
  void operator()(T* p) const {
    Free(p);
  }
};
using Bio = std::unique_ptr<BIO, Deleter<BIO_free>>;
using Pkey = std::unique_ptr<EVP_PKEY, Deleter<EVP_PKEY_free>>;
using Req = std::unique_ptr<X509_REQ, Deleter<X509_REQ_free>>;
using Cert = std::unique_ptr<X509, Deleter<X509_free>>;

std::string Hex(const unsigned char* data, size_t n) {
  static const char* digits = "0123456789abcdef";
  std::string out;
  for (size_t i = 0; i < n; i++) {
    out += digits[data[i] >> 4];
    out += digits[data[i] & 15];
  }
  return out;
}

}  // namespace

KeyPair MakeKeyPair() {
  Pkey key(EVP_EC_gen("P-256"));
  Req req(X509_REQ_new());
  Bio out(BIO_new(BIO_s_mem()));
  if (!key || !req || !out || X509_REQ_set_pubkey(req.get(), key.get()) != 1 ||
      X509_REQ_sign(req.get(), key.get(), EVP_sha256()) <= 0 ||
      PEM_write_bio_PKCS8PrivateKey(out.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr) != 1) {
    throw cli::Failure("cannot make a key");
  }
  KeyPair pair;
  char* text = nullptr;
  const long n = BIO_get_mem_data(out.get(), &text);
  pair.key_pem.assign(text, n);
  unsigned char* der = nullptr;
  const int length = i2d_X509_REQ(req.get(), &der);
  if (length <= 0) throw cli::Failure("cannot make a certificate request");
  pair.csr_der.assign(reinterpret_cast<char*>(der), length);
  OPENSSL_free(der);
  return pair;
}

bool BundleHasKey(const std::string& pem, const std::string& want) {
  Bio in(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  while (true) {
    Cert cert(PEM_read_bio_X509(in.get(), nullptr, nullptr, nullptr));
    if (!cert) return false;
    unsigned char* der = nullptr;
    const int n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert.get()), &der);
    if (n <= 0) continue;
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned int md_size = 0;
    const bool ok = EVP_Digest(der, n, md, &md_size, EVP_sha256(), nullptr) == 1;
    OPENSSL_free(der);
    if (ok && Hex(md, md_size) == want) return true;
  }
}

Token ParseToken(const std::string& text) {
  const size_t first = text.find('.');
  const size_t last = text.rfind('.');
  if (first == std::string::npos || last == first || text.size() - last - 1 != 64 ||
      text.find_first_not_of("0123456789abcdef", last + 1) != std::string::npos) {
    throw cli::Failure("the join token is not of the form ID.SECRET.ROOTHASH");
  }
  return {text.substr(0, last), text.substr(last + 1)};
}

}  // namespace weft::join
