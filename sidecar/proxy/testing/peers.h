// Test support: an echo server, a certificate authority with mesh identities, a port nobody listens on, a whole way through a plane.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <optional>

#include "sidecar/proxy/testing/harness.h"
#include "sidecar/tls/test_ca.h"

namespace weft::proxy::testing {

inline ServerOptions Echo(bool h2 = false) {
  ServerOptions o;
  o.h2 = h2;
  o.handler = [](ServerStream& s) {
    if (!s.responded) {
      Headers h{{"x-path", s.path()}, {"x-method", std::string(s.in.head.Value(Token::kMethod))}};
      for (const char* n : {"x-request-id", "traceparent", "x-forwarded-proto", "x-forwarded-for", "x-forwarded-client-cert",
                            "x-envoy-attempt-count", "x-color", "tracestate"}) {
        if (auto v = s.in.head.Get(n)) h.emplace_back(std::string("seen-") + n, std::string(*v));
      }
      s.Head("200", h);
    }
    s.EchoBody();
  };
  return o;
}

inline std::shared_ptr<const tls::Context> Must(base::Result<std::shared_ptr<const tls::Context>> r) {
  EXPECT_TRUE(r) << (r ? "" : r.error().ToString());
  return r ? *r : nullptr;
}

struct Pki {
  tls::TestCa ca;
  std::shared_ptr<const tls::Context> Server(const std::string& id, std::vector<std::string> alpn = {"h2", "http/1.1"}) {
    tls::ContextConfig c = Base(id);
    c.alpn = std::move(alpn);
    c.require_peer_certificate = true;
    return Must(tls::Context::Server(c));
  }
  std::shared_ptr<const tls::Context> Client(const std::string& id, const std::string& peer, std::vector<std::string> alpn = {"h2"}) {
    tls::ContextConfig c = Base(id);
    c.alpn = std::move(alpn);
    c.peer_sans.push_back({tls::SanMatch::kExact, tls::SanMatch::kUri, peer});
    return Must(tls::Context::Client(c));
  }
  tls::ContextConfig Base(const std::string& id) {
    tls::TestCert cert = ca.Issue({.uris = {id}});
    tls::ContextConfig c;
    c.certificate_chain_pem = cert.chain_pem, c.private_key_pem = cert.key_pem;
    c.trusted_ca_pem = ca.root_pem();
    c.spiffe = true;
    return c;
  }
};
inline constexpr char kFront[] = "spiffe://mesh/ns/default/sa/front", kCart[] = "spiffe://mesh/ns/default/sa/cart";

inline uint16_t ClosedPort() {
  TestServer gone({.handler = [](ServerStream&) {}});
  return gone.port();
}

// An application behind a plane, and its client: each leg in its version of HTTP, both in plaintext or both in mutual TLS.
struct Legs { bool down_h2, up_h2, tls, istio_stats = false; };
struct Through {
  Through(const Legs& legs, std::function<void(ServerStream&)> handler)
      : app({.h2 = legs.up_h2, .tls = legs.tls ? pki.Server(kCart) : nullptr, .handler = std::move(handler)}) {
    const auto version = [](bool h2) { return std::vector<std::string>{h2 ? "h2" : "http/1.1"}; };
    auto& cluster = mesh.AddCluster("app", {app.port()}, legs.tls ? pki.Client(kFront, kCart, version(legs.up_h2)) : nullptr);
    cluster.protocol = legs.up_h2 ? model::Cluster::kHttp2 : model::Cluster::kHttp1;
    if (legs.tls) mesh.server_tls = pki.Server(kFront);
    if (legs.istio_stats) mesh.hcm.istio_stats = std::make_shared<model::IstioStats>();
    mesh.Start();
    client.emplace(mesh.port(), legs.down_h2, legs.tls ? pki.Client(kCart, kFront, version(legs.down_h2)) : nullptr);
  }
  Pki pki;
  TestServer app;
  Mesh mesh;
  std::optional<TestClient> client;
};

}  // namespace weft::proxy::testing
