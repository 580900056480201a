#include <algorithm>
#include <string>

#include "sidecar/base/check.h"
#include "sidecar/codec/fuzz.h"
#include "sidecar/dns/wire.h"
#include "sidecar/filters/listener/http_inspector.h"
#include "sidecar/filters/listener/tls_inspector.h"
#include "sidecar/filters/proxy_protocol/proxy_protocol.h"
#include "sidecar/io/buffer.h"
#include "sidecar/tls/engine.h"
#include "sidecar/tls/keys.h"
#include "sidecar/tls/spiffe.h"
#include "sidecar/tls/test_ca.h"
#include "test/fuzz/fuzz.h"

namespace weft::fuzz {
namespace {

// Fed whole, and fed in pieces cut by the bytes themselves: the verdict must not depend on it.
template <typename Inspector, typename Check>
void Inspect(std::string_view bytes, Check check) {
  Inspector whole, pieces;
  auto verdict = whole.Feed(bytes);
  for (size_t i = 0; i < bytes.size();) {
    size_t n = std::min(bytes.size() - i, size_t{1} + (static_cast<unsigned char>(bytes[i]) & 15));
    pieces.Feed(bytes.substr(i, n));
    i += n;
  }
  WEFT_CHECK(pieces.Feed("") == verdict, "split input is judged differently");
  check(whole, pieces);
}

void ClientHello(std::string_view bytes) {
  Inspect<filters::TlsInspector>(bytes, [](auto& a, auto& b) {
    WEFT_CHECK(a.sni() == b.sni() && a.alpn() == b.alpn() && a.sni().size() <= 255);
    WEFT_CHECK(a.seen() <= filters::TlsInspector::kMaxWire + 1);
  });
}

void HttpStart(std::string_view bytes) {
  Inspect<filters::HttpInspector>(bytes, [](auto& a, auto& b) { WEFT_CHECK(a.protocol() == b.protocol()); });
}

void ProxyHeaderBytes(std::string_view bytes) {
  model::ProxyProtocolFilter rules;
  rules.keep.set();
  filters::ProxyHeader whole, grown;
  io::Buffer all, pieces;
  all.Append(bytes);
  const filters::Verdict verdict = ReadProxyHeader(all, rules, &whole);
  // Whatever more comes, what was decided stays decided.
  filters::Verdict so_far = filters::Verdict::kNeedMore;
  for (size_t i = 0; i < bytes.size() && so_far == filters::Verdict::kNeedMore;) {
    const size_t n = std::min(bytes.size() - i, size_t{1} + (static_cast<unsigned char>(bytes[i]) & 15));
    pieces.Append(bytes.substr(i, n));
    i += n;
    so_far = ReadProxyHeader(pieces, rules, &grown);
  }
  WEFT_CHECK(bytes.empty() || so_far == verdict, "split input is judged differently");
  if (verdict != filters::Verdict::kFound) return;
  WEFT_CHECK(whole.size <= bytes.size() && whole.size <= filters::kMaxProxyHeader && grown.size == whole.size);
  if (!whole.known) return;
  for (int version : {1, 2}) {
    model::ProxyProtocolHeader config;
    config.version = version;
    config.pass.set();
    io::Buffer again;
    again.Append(filters::WriteProxyHeader(config, whole.source, whole.destination, whole.tlvs));
    filters::ProxyHeader back;
    WEFT_CHECK(ReadProxyHeader(again, rules, &back) == filters::Verdict::kFound && back.size == again.size(), "our own header is not read");
    WEFT_CHECK(back.source == whole.source && back.destination == whole.destination && (version == 1 || back.tlvs == whole.tlvs));
  }
}

void DnsQuery(std::string_view bytes) {
  dns::Query q;
  switch (dns::ParseQuery(bytes, &q)) {
    case dns::QueryVerdict::kDrop:
      return;
    case dns::QueryVerdict::kOk:
      break;
    default:
      WEFT_CHECK(dns::BuildError(bytes, dns::Rcode::kFormErr).size() == dns::kHeader);
      return;
  }
  WEFT_CHECK(q.question_end <= bytes.size() && q.udp_size >= dns::kMaxUdp && q.udp_size <= dns::kMaxEdns);
  model::Ip ip;
  ip.family = 4;
  std::string answer = dns::BuildAnswer(q, bytes, dns::Rcode::kNoError, std::vector<model::Ip>(60, ip), 5, q.udp_size);
  WEFT_CHECK(answer.size() <= std::max(q.udp_size, q.question_end + 11));
  WEFT_CHECK(dns::IsResponseTo(answer, bytes), "our own answer does not answer");
}

void DnsResponse(std::string_view bytes) {
  dns::Response r;
  for (uint16_t type : {dns::kA, dns::kAaaa}) {
    if (!dns::ParseResponse(bytes, "a.example", type, &r)) continue;
    for (const model::Ip& ip : r.addresses) WEFT_CHECK(ip.family == (type == dns::kA ? 4 : 6));
    WEFT_CHECK(r.addresses.size() <= 256 && r.ttl_s <= 7 * 86400);
  }
  dns::IsResponseTo(bytes, dns::BuildQuery(1, "a.example", dns::kA));
}

void Certificate(std::string_view bytes) {
  auto info = tls::ParseCertDer(bytes);
  if (!info) return;
  WEFT_CHECK(info->spiffe_id.empty() || info->uri_sans.size() == 1);
  tls::ParseSpiffeId(info->spiffe_id);
}

void SpiffeId(std::string_view bytes) {
  auto id = tls::ParseSpiffeId(bytes);
  if (!id) return;
  WEFT_CHECK(bytes.size() <= 2048 && !id->trust_domain.empty() && id->path.size() > 1);
  WEFT_CHECK(bytes.find_first_of(std::string_view("\0\r\n%?#@: ", 9), 9) == std::string_view::npos);
  WEFT_CHECK(id->path.find("/../") == std::string_view::npos && id->path.find("//") == std::string_view::npos);
}

void Pem(std::string_view bytes) {
  auto ders = tls::PemToDer(bytes, "CERTIFICATE");
  if (ders) WEFT_CHECK(!ders->empty());
  auto bundle = tls::ParseBundlePem(bytes);
  WEFT_CHECK(!bundle || (ders && bundle->size() == ders->size()));
}

// The first flight of a client, to a server that wants a certificate: never plain bytes, never an identity.
void TlsServer(std::string_view bytes) {
  static const auto context = [] {
    tls::TestCa ca;
    tls::TestCert cert = ca.Issue({.uris = {"spiffe://mesh/ns/default/sa/cart"}});
    tls::ContextConfig c;
    c.certificate_chain_pem = cert.chain_pem, c.private_key_pem = cert.key_pem, c.trusted_ca_pem = ca.root_pem();
    c.require_peer_certificate = c.spiffe = true;
    c.alpn = {"h2"};
    return *tls::Context::Server(c);
  }();
  tls::Engine e(context, tls::Engine::kServer);
  io::Buffer in, plain, out;
  in.Append(bytes);
  e.Feed(in, plain);
  e.Pump(out);
  WEFT_CHECK(plain.empty() && !e.peer() && e.state() != tls::Engine::State::kOpen);
  WEFT_CHECK(out.size() <= 64 * 1024, "amplification");
}

template <int (*kEntry)(const uint8_t*, size_t)>
void Codec(std::string_view bytes) {
  kEntry(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
}

}  // namespace

std::vector<Target> WireTargets() {
  return {
      {"client_hello", ClientHello},
      {"http_start", HttpStart},
      {"proxy_header", ProxyHeaderBytes},
      {"dns_query", DnsQuery},
      {"dns_response", DnsResponse},
      {"certificate", Certificate},
      {"spiffe_id", SpiffeId},
      {"pem", Pem},
      {"tls_server", TlsServer},
      {"http1_server", Codec<codec::FuzzHttp1Server>},
      {"http1_client", Codec<codec::FuzzHttp1Client>},
      {"http2_server", Codec<codec::FuzzHttp2Server>},
      {"http2_client", Codec<codec::FuzzHttp2Client>},
      {"grpc", Codec<codec::FuzzGrpcReader>},
  };
}

}  // namespace weft::fuzz
