// The library pulls ciphertext from in_ (the caller's buffer, set only during Feed) and pushes into out_, which Pump and
// Seal move on. Nothing here blocks: an empty in_ is "want read". Test: engine_test.cc.
#include "sidecar/tls/engine.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <cstring>

#include "sidecar/base/check.h"
#include "sidecar/base/str.h"
#include "sidecar/tls/context_impl.h"
#include "sidecar/tls/verify.h"

namespace weft::tls {

using base::Cat;

std::string_view FailureName(Failure f) {
  switch (f) {
    case Failure::kNone: return "none";
    case Failure::kProtocol: return "protocol_error";
    case Failure::kPeerClosed: return "peer_closed";
    case Failure::kUnknownCa: return "unknown_ca";
    case Failure::kExpired: return "certificate_expired";
    case Failure::kNotYetValid: return "certificate_not_yet_valid";
    case Failure::kNoCertificate: return "no_certificate";
    case Failure::kSanMismatch: return "san_mismatch";
    case Failure::kBadSvid: return "bad_certificate";
    case Failure::kAlert: return "peer_alert";
    case Failure::kRevoked: return "certificate_revoked";
  }
  return "unknown";
}

struct Engine::Impl {
  std::shared_ptr<const Context> owner;
  const ContextImpl* context = nullptr;
  std::string session_key;
  io::Buffer* in = nullptr;
  io::Buffer out;
  Judgement judgement;  // of the certificate, when it was refused
  bool verified = false;
  bssl::UniquePtr<SSL> ssl;  // last: freed first

  static int Read(BIO* bio, char* to, int n) {
    BIO_clear_retry_flags(bio);
    auto* self = static_cast<Impl*>(BIO_get_data(bio));
    if (!self->in || self->in->empty()) {
      BIO_set_retry_read(bio);
      return -1;
    }
    size_t got = self->in->CopyOut(0, to, static_cast<size_t>(n));
    self->in->Consume(got);
    return static_cast<int>(got);
  }
  static int Write(BIO* bio, const char* from, int n) {
    BIO_clear_retry_flags(bio);
    static_cast<Impl*>(BIO_get_data(bio))->out.Append(std::string_view(from, static_cast<size_t>(n)));
    return n;
  }
  static long Control(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }
  static BIO_METHOD* Method() {
    static BIO_METHOD* method = [] {
      BIO_METHOD* m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "buffer");
      BIO_meth_set_read(m, Read);
      BIO_meth_set_write(m, Write);
      BIO_meth_set_ctrl(m, Control);
      return m;
    }();
    return method;
  }
};

enum ssl_verify_result_t VerifyCallback(SSL* ssl, uint8_t* alert) {
  auto* impl = static_cast<Engine::Impl*>(SSL_get_app_data(ssl));
  if (!impl->context->has_roots) return ssl_verify_ok;  // asked for, but nobody can vouch for it: gives no identity
  impl->judgement = JudgePeer(*impl->context, SSL_get0_peer_certificates(ssl));
  if (impl->judgement.failure == Failure::kNone) return ssl_verify_ok;
  *alert = impl->judgement.alert;
  return ssl_verify_invalid;
}

int NewSessionCallback(SSL* ssl, SSL_SESSION* session) {
  auto* impl = static_cast<Engine::Impl*>(SSL_get_app_data(ssl));
  if (impl->session_key.empty()) return 0;
  impl->context->PutSession(impl->session_key, bssl::UniquePtr<SSL_SESSION>(session));
  return 1;
}

Engine::Engine(std::shared_ptr<const Context> context, Role role, std::string session_key) : impl_(std::make_unique<Impl>()) {
  Impl& m = *impl_;
  m.owner = std::move(context);
  m.context = static_cast<const ContextImpl*>(m.owner.get());
  m.session_key = std::move(session_key);
  WEFT_CHECK(m.context->server == (role == kServer), "context and engine disagree about the role");
  m.ssl.reset(SSL_new(m.context->ctx.get()));
  WEFT_CHECK(m.ssl, "SSL_new");
  SSL* ssl = m.ssl.get();
  SSL_set_app_data(ssl, &m);
  SSL_set_shed_handshake_config(ssl, 1);
  BIO* bio = BIO_new(Impl::Method());
  WEFT_CHECK(bio, "BIO_new");
  BIO_set_data(bio, &m);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl, bio, bio);
  if (role == kServer) {
    SSL_set_accept_state(ssl);
    return;
  }
  SSL_set_connect_state(ssl);
  const std::string& sni = m.context->config.sni;
  if (!sni.empty()) SSL_set_tlsext_host_name(ssl, sni.c_str());
  if (!m.session_key.empty()) {
    if (auto session = m.context->TakeSession(m.session_key)) SSL_set_session(ssl, session.get());
  }
  Handshake();  // writes the ClientHello
}

Engine::~Engine() = default;

Engine::State Engine::Fail() {
  Impl& m = *impl_;
  state_ = State::kFailed;
  uint32_t code = ERR_peek_error();
  if (m.judgement.failure != Failure::kNone) {
    failure_ = m.judgement.failure;
    detail_ = m.judgement.detail;
  } else if (ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) >= 1000) {
    failure_ = Failure::kAlert;
    detail_ = Cat("peer sent alert: ", SSL_alert_desc_string_long(ERR_GET_REASON(code) - 1000));
  } else if (ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE) {
    failure_ = Failure::kNoCertificate;
    detail_ = "peer sent no certificate";
  } else {
    failure_ = Failure::kProtocol;
    const char* reason = ERR_reason_error_string(code);
    detail_ = reason ? reason : "TLS failure without a reason";
  }
  ERR_clear_error();
  return state_;
}

Engine::State Engine::Handshake() {
  Impl& m = *impl_;
  SSL* ssl = m.ssl.get();
  ERR_clear_error();
  int rc = SSL_do_handshake(ssl);
  if (rc != 1) {
    int error = SSL_get_error(ssl, rc);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return state_;
    return Fail();
  }
  const STACK_OF(CRYPTO_BUFFER)* chain = SSL_get0_peer_certificates(ssl);
  if (m.context->has_roots && chain && sk_CRYPTO_BUFFER_num(chain) > 0) {
    peer_ = m.judgement.peer ? std::move(m.judgement.peer) : DescribePeer(sk_CRYPTO_BUFFER_value(chain, 0));
    // A resumed session was verified when it was made, by this very context; time may have passed since.
    if (peer_ && SSL_session_reused(ssl) && peer_->not_after_unix_s < m.context->NowUnixS()) {
      m.judgement = {Failure::kExpired, Cat("certificate expired since the session began (", peer_->spiffe_id, ")"),
                     SSL_AD_CERTIFICATE_EXPIRED, nullptr};
      peer_.reset();
      SSL_send_fatal_alert(ssl, SSL_AD_CERTIFICATE_EXPIRED);
      return Fail();
    }
  }
  return state_ = State::kOpen;
}

Engine::State Engine::Feed(io::Buffer& wire_in, io::Buffer& plain_in) {
  Impl& m = *impl_;
  if (state_ == State::kFailed || state_ == State::kPeerClosed) return state_;
  m.in = &wire_in;
  if (state_ == State::kHandshake) Handshake();
  while (state_ == State::kOpen) {
    auto room = plain_in.Reserve(1);
    ERR_clear_error();
    int n = SSL_read(m.ssl.get(), room.data(), static_cast<int>(room.size()));
    if (n > 0) {
      plain_in.Commit(static_cast<size_t>(n));
      if (wire_in.empty() && !SSL_has_pending(m.ssl.get())) break;  // the usual message is one record
      continue;
    }
    plain_in.ReleaseReserve();
    int error = SSL_get_error(m.ssl.get(), n);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) break;
    if (error == SSL_ERROR_ZERO_RETURN) {
      state_ = State::kPeerClosed;
    } else {
      Fail();
    }
  }
  m.in = nullptr;
  return state_;
}

Engine::State Engine::FeedEof() {
  if (state_ == State::kHandshake) {
    state_ = State::kFailed;
    failure_ = Failure::kPeerClosed;
    detail_ = "peer closed during the handshake";
  } else if (state_ == State::kOpen) {
    state_ = State::kPeerClosed;
    truncated_ = true;
  }
  return state_;
}

Engine::State Engine::Seal(io::Buffer& plain_out, io::Buffer& wire_out, size_t max) {
  Impl& m = *impl_;
  // Records as full as can be: small pieces are gathered, big ones sealed where they lie.
  constexpr size_t kRecord = 16384;
  static thread_local char scratch[kRecord];
  for (size_t done = 0; !plain_out.empty() && done < max;) {
    if (state_ != State::kOpen && state_ != State::kPeerClosed) break;
    std::string_view piece = plain_out.Front();
    if (piece.size() < kRecord / 2 && plain_out.size() > piece.size()) {
      piece = {scratch, plain_out.CopyOut(0, scratch, kRecord)};
    } else if (piece.size() > kRecord) {
      piece = piece.substr(0, kRecord);
    }
    ERR_clear_error();
    int n = SSL_write(m.ssl.get(), piece.data(), static_cast<int>(piece.size()));
    if (n <= 0) {
      Fail();
      break;
    }
    plain_out.Consume(static_cast<size_t>(n));
    done += static_cast<size_t>(n);
  }
  wire_out.Move(m.out);
  return state_;
}

void Engine::Pump(io::Buffer& wire_out) { wire_out.Move(impl_->out); }
bool Engine::wants_pump() const { return !impl_->out.empty(); }

void Engine::Close(io::Buffer& wire_out) {
  if (state_ == State::kOpen || state_ == State::kPeerClosed) {
    ERR_clear_error();
    SSL_shutdown(impl_->ssl.get());
    ERR_clear_error();
  }
  Pump(wire_out);
}

std::string_view Engine::alpn() const {
  const uint8_t* data;
  unsigned size;
  SSL_get0_alpn_selected(impl_->ssl.get(), &data, &size);
  return {reinterpret_cast<const char*>(data), size};
}

std::string_view Engine::sni() const {
  const char* name = SSL_get_servername(impl_->ssl.get(), TLSEXT_NAMETYPE_host_name);
  return name ? name : "";
}

std::string_view Engine::version() const {
  return SSL_in_init(impl_->ssl.get()) ? std::string_view() : SSL_get_version(impl_->ssl.get());
}

std::string_view Engine::cipher() const {
  const SSL_CIPHER* c = SSL_get_current_cipher(impl_->ssl.get());
  return c ? SSL_CIPHER_standard_name(c) : "";
}

std::string_view Engine::group() const {
  const char* name = SSL_get_group_name(SSL_get_group_id(impl_->ssl.get()));
  return name ? name : "";
}

std::string Engine::session_id() const {
  const SSL_SESSION* session = SSL_get_session(impl_->ssl.get());
  unsigned n = 0;
  const uint8_t* id = session ? SSL_SESSION_get_id(session, &n) : nullptr;
  return base::Hex({reinterpret_cast<const char*>(id), n});
}

std::string Engine::peer_pem(bool chain) const {
  const STACK_OF(CRYPTO_BUFFER)* sent = SSL_get0_peer_certificates(impl_->ssl.get());
  const size_t n = sent ? (chain ? sk_CRYPTO_BUFFER_num(sent) : std::min<size_t>(1, sk_CRYPTO_BUFFER_num(sent))) : 0;
  bssl::UniquePtr<BIO> bio(BIO_new(BIO_s_mem()));
  for (size_t i = 0; i < n; ++i) {
    const CRYPTO_BUFFER* der = sk_CRYPTO_BUFFER_value(sent, i);
    WEFT_CHECK(PEM_write_bio(bio.get(), PEM_STRING_X509, "", CRYPTO_BUFFER_data(der), static_cast<long>(CRYPTO_BUFFER_len(der))) > 0, "PEM_write_bio");
  }
  const uint8_t* text = nullptr;
  size_t size = 0;
  BIO_mem_contents(bio.get(), &text, &size);
  return {reinterpret_cast<const char*>(text), size};
}

const LocalNames& Engine::local_names() const { return impl_->context->names; }

bool Engine::resumed() const { return SSL_session_reused(impl_->ssl.get()) == 1; }

}  // namespace weft::tls
