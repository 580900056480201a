// What is done to the heads of requests and responses on their way: identity of the request, of its client, of its trace;
// what a client may not say itself is taken away. Order as in Envoy's connection manager and router.
#include <algorithm>
#include <charconv>
#include <cstring>

#include "sidecar/http/authority.h"
#include "sidecar/http/date.h"
#include "sidecar/proxy/exchange.h"
#include "sidecar/proxy/format.h"

namespace weft::proxy {
namespace {

using http::Token;
using Hcm = model::HttpConnectionManager;

void PutBytes(uint64_t v, uint8_t* to) {
  for (int i = 7; i >= 0; --i, v >>= 8) to[i] = static_cast<uint8_t>(v);
}

// As the field's readers expect PEM in a value of x-forwarded-client-cert.
std::string PercentEncodedPem(std::string_view pem) {
  std::string out;
  for (char c : pem) {
    switch (c) {
      case '\n': out += "%0A"; break;
      case ' ': out += "%20"; break;
      case '+': out += "%2B"; break;
      case '/': out += "%2F"; break;
      case '=': out += "%3D"; break;
      default: out += c;
    }
  }
  return out;
}

// "5H" "30S" "100m" "7u" "9n": the gRPC wire format. 0: absent or malformed.
uint64_t ParseGrpcTimeout(std::string_view v) {
  if (v.size() < 2 || v.size() > 9) return 0;
  uint64_t n = 0;
  for (char c : v.substr(0, v.size() - 1)) {
    if (c < '0' || c > '9') return 0;
    n = n * 10 + static_cast<uint64_t>(c - '0');
  }
  switch (v.back()) {
    case 'H': return n * 3600 * base::kSecond;
    case 'M': return n * 60 * base::kSecond;
    case 'S': return n * base::kSecond;
    case 'm': return n * base::kMs;
    case 'u': return n * 1000;
    case 'n': return n;
    default: return 0;
  }
}

void Apply(const std::vector<model::HeaderOption>& add, const std::vector<std::string>& remove, http::HeaderMap& head,
           const auto& expand) {
  for (const std::string& name : remove) head.Remove(name);
  for (const model::HeaderOption& o : add) {
    std::string expanded;
    if (o.format) expand(*o.format, &expanded);
    const std::string_view value = o.format ? expanded : o.value;
    if (value.empty() && !o.keep_empty_value) continue;
    bool there = head.Get(o.name).has_value();
    switch (o.action) {
      case model::HeaderOption::kAppend: head.Add(o.name, value); break;
      case model::HeaderOption::kAddIfAbsent:
        if (!there) head.Add(o.name, value);
        break;
      case model::HeaderOption::kOverwrite: head.Set(o.name, value); break;
      case model::HeaderOption::kOverwriteIfExists:
        if (there) head.Set(o.name, value);
        break;
    }
  }
}

}  // namespace

// Names only the mesh itself may send; fault headers are the fault filter's business.
void Exchange::StripHopHeaders() {
  http::HeaderMap& head = down_.head;
  bool any = false;
  for (const auto& e : head) {
    std::string_view n = e.name();
    if (n.size() > 8 && n[0] == 'x' && n.starts_with("x-envoy-") && !n.starts_with("x-envoy-fault-")) any = true;
  }
  while (any) {
    any = false;
    for (const auto& e : head) {
      std::string_view n = e.name();
      if (!n.starts_with("x-envoy-") || n.starts_with("x-envoy-fault-")) continue;
      scratch_ = n;
      any = true;
      break;
    }
    if (any) head.Remove(scratch_);
  }
}

// Several lines of a list become one, as in Envoy.
void Exchange::JoinLines(Token token) {
  if (!down_.head.Has(token)) return;
  std::string joined;
  down_.head.Joined(TokenName(token), joined);
  if (!joined.empty()) down_.head.Set(token, joined);
}

// The client is who the last hop but `skip` told of; where fewer were named, or something else than an address, it is the peer.
void Exchange::TrustForwardedFor(uint32_t skip) {
  std::string_view list = down_.head.Value(Token::kXForwardedFor);
  for (; skip > 0; --skip) {
    const size_t comma = list.rfind(',');
    if (comma == std::string_view::npos) return;
    list = list.substr(0, comma);
  }
  std::string_view last = list.substr(list.rfind(',') + 1);  // without a comma: the whole of it
  while (!last.empty() && (last.front() == ' ' || last.front() == '\t')) last.remove_prefix(1);
  while (!last.empty() && (last.back() == ' ' || last.back() == '\t')) last.remove_suffix(1);
  if (auto ip = model::Ip::Parse(last)) record_->downstream_remote = model::Address::FromIp(*ip, 0);
}

void Exchange::PrepareRequestHead() {
  http::HeaderMap& head = down_.head;
  const Hcm& hcm = conn_->hcm();
  const char* scheme = conn_->tls() ? "https" : "http";
  if (!hcm.scheme_override.empty()) scheme = hcm.scheme_override.c_str();
  if (!head.Has(Token::kScheme) || !hcm.scheme_override.empty()) {
    if (!upgrade_ || record_->websocket) head.Set(Token::kScheme, scheme);
  }
  if (hcm.strip_any_host_port || hcm.strip_matching_host_port) {
    auto parsed = http::ParseAuthority(head.Value(Token::kAuthority));
    bool strip = parsed && parsed->port && !upgrade_ && (hcm.strip_any_host_port || parsed->port == conn_->destination().port);
    if (strip) {
      scratch_ = head.Value(Token::kAuthority);
      scratch_.resize(scratch_.rfind(':'));
      head.Set(Token::kAuthority, scratch_);
    }
  }
  StripHopHeaders();
  JoinLines(Token::kXForwardedFor);
  // The client's address: ours to say when we are the first hop, else the hop before us told.
  if (hcm.use_remote_address) {
    const model::Address peer = record_->downstream_remote;
    if (hcm.xff_num_trusted_hops > 0) TrustForwardedFor(hcm.xff_num_trusted_hops - 1);
    if (!hcm.skip_xff_append) {
      scratch_ = head.Value(Token::kXForwardedFor);
      if (!scratch_.empty()) scratch_ += ',';
      scratch_ += peer.WithoutPort();
      head.Set(Token::kXForwardedFor, scratch_);
    }
    if (hcm.xff_num_trusted_hops == 0 || !head.Has(Token::kXForwardedProto)) head.Set(Token::kXForwardedProto, conn_->tls() ? "https" : "http");
  } else {
    if (!head.Has(Token::kXForwardedProto)) head.Add(Token::kXForwardedProto, conn_->tls() ? "https" : "http");
    TrustForwardedFor(hcm.xff_num_trusted_hops);
  }
  if (hcm.add_user_agent && !head.Has(Token::kUserAgent) && !core_->options().service_cluster.empty()) {
    head.Add(Token::kUserAgent, core_->options().service_cluster);
  }
  ForwardClientCert();
  bool external = hcm.use_remote_address && !hcm.preserve_external_request_id;
  if (hcm.generate_request_id && (external || head.Value(Token::kXRequestId).empty())) {
    char id[http::kUuidLength];
    head.Set(Token::kXRequestId, http::NewUuid4(id));
  }
  if (told_ || hcm.always_set_request_id_in_response) record_->request_id = head.Value(Token::kXRequestId);
  TraceHead();
  if (!hcm.via.empty()) head.Add(Token::kVia, hcm.via);
  grpc_timeout_ns_ = grpc_ ? ParseGrpcTimeout(head.Value(Token::kGrpcTimeout)) : 0;
}

// A span for this hop, where somebody reads it: child of the caller's, parent of the next hop's. Elsewhere the caller's own
// passes untouched, as in Envoy without tracing.
void Exchange::TraceHead() {
  http::HeaderMap& head = down_.head;
  const auto& tracing = conn_->hcm().tracing;
  if (!tracing && !core_->options().all_records) return;
  auto parent = http::ParseTraceparent(head.Value(Token::kTraceparent));
  if (parent) {
    PutBytes(parent->span_id, record_->parent_span_id);
    trace_ = parent->Child();
  } else {
    bool sampled = !tracing || core_->random().Double() * 100 < std::min(tracing->random_sampling, tracing->overall_sampling);
    trace_ = http::TraceContext::NewRoot(sampled);
    head.Remove(Token::kTracestate);
  }
  PutBytes(trace_.trace_hi, record_->trace_id), PutBytes(trace_.trace_lo, record_->trace_id + 8);
  PutBytes(trace_.span_id, record_->span_id);
  record_->sampled = trace_.sampled();
  char text[http::kTraceparentLength];
  head.Set(Token::kTraceparent, http::FormatTraceparent(trace_, text));
}

void Exchange::ForwardClientCert() {
  http::HeaderMap& head = down_.head;
  const Hcm& hcm = conn_->hcm();
  JoinLines(Token::kXfcc);
  if (hcm.xfcc == Hcm::kAlwaysForwardOnly) return;
  const tls::PeerInfo* peer = conn_->peer_info();
  if (hcm.xfcc == Hcm::kSanitize || !peer) {
    head.Remove(Token::kXfcc);
    return;
  }
  if (hcm.xfcc == Hcm::kForwardOnly) return;
  scratch_.clear();
  // A name in a certificate is the peer's text: it must not end its value, its element or the field.
  auto put = [&](std::string_view key, std::string_view value, bool quote) {
    if (!scratch_.empty()) scratch_ += ';';
    scratch_ += key, scratch_ += '=';
    quote |= value.find_first_of(",;=\" \\") != std::string_view::npos;
    if (quote) scratch_ += '"';
    for (char c : value) {
      if (c == '"' || c == '\\') scratch_ += '\\';
      scratch_ += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
    }
    if (quote) scratch_ += '"';
  };
  for (const std::string& uri : conn_->tls()->local_names().uri_sans) put("By", uri, false);
  put("Hash", peer->sha256_hex, false);
  if (hcm.xfcc_cert) scratch_ += ";Cert=\"" + PercentEncodedPem(conn_->tls()->peer_pem(false)) + '"';
  if (hcm.xfcc_chain) scratch_ += ";Chain=\"" + PercentEncodedPem(conn_->tls()->peer_pem(true)) + '"';
  if (hcm.xfcc_subject) scratch_ += scratch_.empty() ? "Subject=\"" : ";Subject=\"", scratch_ += peer->subject, scratch_ += '"';  // RFC 2253: escaped
  if (hcm.xfcc_uri) {
    if (peer->uri_sans.empty()) put("URI", "", false);
    for (const auto& uri : peer->uri_sans) put("URI", uri, false);
  }
  if (hcm.xfcc_dns) {
    for (const auto& dns : peer->dns_sans) put("DNS", dns, false);
  }
  if (hcm.xfcc == Hcm::kAppendForward) {
    std::string joined;
    if (auto old = head.Joined("x-forwarded-client-cert", joined); old && !old->empty()) scratch_ = std::string(*old) + "," + scratch_;
  }
  head.Set(Token::kXfcc, scratch_);
}

void Exchange::ApplyRequestMutations() {
  http::HeaderMap& head = down_.head;
  auto expand = [&](const model::LogFormat& f, std::string* out) { AppendLive(f, *record_, {.request = &head}, out); };
  auto apply = [&](const model::HeaderMutations& m) {
    if (!m.request_add.empty() || !m.request_remove.empty()) Apply(m.request_add, m.request_remove, head, expand);
  };
  // Most specific first, as Envoy, unless the table says otherwise.
  bool specific_last = table_->config().most_specific_header_mutations_wins;
  if (specific_last) apply(table_->config().headers), apply(found_.vhost->headers);
  if (specific_last) apply(found_.route->headers);
  if (found_.weighted) apply(found_.weighted->headers);
  if (!specific_last) apply(found_.route->headers), apply(found_.vhost->headers), apply(table_->config().headers);
  if (found_.route->forward.timeout_set && route_timeout_ns_) {
    head.Set(Token::kEnvoyExpectedRqTimeout, std::to_string(route_timeout_ns_ / base::kMs));
  }
}

void Exchange::ApplyResponseMutations(http::HeaderMap& head) {
  if (!found_.route || !found_.vhost) return;
  const LiveHeads heads{&down_.head, &head, source_ == &stream_.in};
  record_->request_bytes = down_.body_bytes;
  auto expand = [&](const model::LogFormat& f, std::string* out) { AppendLive(f, *record_, heads, out); };
  auto apply = [&](const model::HeaderMutations& m) {
    if (!m.response_add.empty() || !m.response_remove.empty()) Apply(m.response_add, m.response_remove, head, expand);
  };
  bool specific_last = table_->config().most_specific_header_mutations_wins;
  if (specific_last) apply(table_->config().headers), apply(found_.vhost->headers);
  if (specific_last) apply(found_.route->headers);
  if (found_.weighted) apply(found_.weighted->headers);
  if (!specific_last) apply(found_.route->headers), apply(found_.vhost->headers), apply(table_->config().headers);
}

void Exchange::PrepareResponseHead(http::HeaderMap& head) {
  const Hcm& hcm = conn_->hcm();
  bool upstream = source_ == &stream_.in;
  if (upstream) {
    char text[24];
    auto n = std::to_chars(text, text + sizeof text, record_->upstream_service_ns / static_cast<int64_t>(base::kMs));
    head.Set(Token::kEnvoyUpstreamServiceTime, std::string_view(text, static_cast<size_t>(n.ptr - text)));
  }
  if (cluster_ || found_.route) ApplyResponseMutations(head);
  if (found_.vhost && found_.vhost->include_attempt_count_in_response && cluster_) {
    head.Set(Token::kEnvoyAttemptCount, std::to_string(record_->attempt_count));
  }
  if (!head.Has(Token::kDate)) head.Add(Token::kDate, http::HttpDate(core_->loop()->wall_now() / base::kSecond));
  switch (hcm.server_header) {
    case Hcm::kOverwrite: head.Set(Token::kServer, hcm.server_name); break;
    case Hcm::kAppendIfAbsent:
      if (!head.Has(Token::kServer)) head.Add(Token::kServer, hcm.server_name);
      break;
    case Hcm::kPassThrough: break;
  }
  if (!hcm.via.empty()) head.Add(Token::kVia, hcm.via);
  if (hcm.always_set_request_id_in_response && !record_->request_id.empty()) head.Set(Token::kXRequestId, record_->request_id);
}

void Exchange::Capture(const http::HeaderMap& from, bool all, const std::vector<std::string>& names, http::HeaderMap& to) {
  for (const auto& e : from) {
    if (all || std::find(names.begin(), names.end(), e.name()) != names.end()) to.Add(e.name(), e.value());
  }
}

}  // namespace weft::proxy
