// What a Context holds; only this folder sees it.
#pragma once

#include <openssl/base.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <re2/re2.h>

#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "sidecar/tls/engine.h"

namespace weft::tls {

class ContextImpl final : public Context {
 public:
  ContextConfig config;
  LocalNames names;
  int64_t not_after_s = 0;
  bool server = false;
  bool has_roots = false;
  bssl::UniquePtr<X509_STORE> roots;
  std::vector<std::unique_ptr<RE2>> san_regex;  // parallel to config.peer_sans, null unless kRegex
  std::vector<uint8_t> alpn_wire;
  bssl::UniquePtr<SSL_CTX> ctx;
  base::Clock* clock = base::Clock::Real();

  int64_t not_after_unix_s() const override { return not_after_s; }
  int64_t NowUnixS() const { return static_cast<int64_t>(clock->UnixNs() / base::kSecond); }

  // Client sessions by key: the one part that changes, hence the lock (taken once a handshake).
  void PutSession(const std::string& key, bssl::UniquePtr<SSL_SESSION> session) const;
  bssl::UniquePtr<SSL_SESSION> TakeSession(const std::string& key) const;

 private:
  mutable std::mutex mutex_;
  mutable std::unordered_map<std::string, bssl::UniquePtr<SSL_SESSION>> sessions_;
};

// In engine.cc: finds the Engine behind ssl and judges its peer.
enum ssl_verify_result_t VerifyCallback(SSL* ssl, uint8_t* alert);
int NewSessionCallback(SSL* ssl, SSL_SESSION* session);

}  // namespace weft::tls
