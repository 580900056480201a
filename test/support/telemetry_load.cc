// Made-up traffic of a shop, streamed to a server's Telemetry service as its sidecars would: for the page's test, for
// looking at the page, and for load.
//
//   telemetry_load --target 127.0.0.1:15012 --seconds 60 --rps 50     live
//   telemetry_load --target … --backlog 50                             the last 50 seconds at once, then exit
//
// Every stream waits for its acknowledgements; the number of events sent and acknowledged is printed. Some requests have
// fixed ids, one for each cause of failure: demo-refused, demo-reset, demo-timeout, demo-breaker, demo-budget,
// demo-unhealthy, demo-denied, demo-missing, demo-wrong, demo-rollout, demo-behind.
#include <grpcpp/grpcpp.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "api/weft/telemetry/v1/telemetry.grpc.pb.h"

namespace {

namespace pb = weft::telemetry::v1;

uint64_t NowNs() { return static_cast<uint64_t>(std::chrono::system_clock::now().time_since_epoch().count()); }

std::string Identity(const std::string& service) { return "spiffe://weft.local/ns/default/sa/" + service; }

class Sidecar {
 public:
  Sidecar(std::string service, std::string version, pb::Telemetry::Stub* stub) : service_(std::move(service)), version_(std::move(version)), stub_(stub) {
    epoch_ = service_ + version_ + std::to_string(NowNs());
    Fresh();
  }
  pb::RequestEvent* Add() {
    auto* e = batch_.add_events();
    e->set_number(++number_);
    e->set_grpc_status(-1), e->set_config_revision(14);
    return e;
  }
  bool Send() {
    waiting_ = batch_.events_size();
    if (waiting_ == 0) return true;
    if (!stream_) context_ = std::make_unique<grpc::ClientContext>(), stream_ = stub_->Stream(context_.get());
    batch_.set_sequence(++sequence_);
    sent += static_cast<uint64_t>(waiting_);
    bool good = stream_->Write(batch_);
    Fresh();
    return good;
  }
  // Until what was sent is durable.
  bool Await() {
    if (waiting_ == 0) return true;
    pb::BatchAck ack;
    if (!stream_->Read(&ack) || ack.sequence() != sequence_) return false;
    acknowledged += static_cast<uint64_t>(waiting_);
    return true;
  }
  void Close() {
    if (!stream_) return;
    stream_->WritesDone();
    stream_->Finish();
  }
  const std::string& service() const { return service_; }
  static inline uint64_t sent = 0, acknowledged = 0;

 private:
  void Fresh() {
    batch_.Clear();
    batch_.set_workload_id(service_ + "-" + (version_.empty() ? "1" : version_)), batch_.set_service(service_);
    batch_.set_namespace_("default"), batch_.set_version(version_), batch_.set_epoch(epoch_), batch_.set_config_revision(14);
  }
  std::string service_, version_, epoch_;
  pb::Telemetry::Stub* stub_;
  std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<grpc::ClientReaderWriter<pb::EventBatch, pb::BatchAck>> stream_;
  pb::EventBatch batch_;
  uint64_t number_ = 0, sequence_ = 0;
  int waiting_ = 0;
};

class Shop {
 public:
  explicit Shop(const std::string& target) {
    stub_ = pb::Telemetry::NewStub(grpc::CreateChannel(target, grpc::InsecureChannelCredentials()));
  }
  Sidecar& At(const std::string& service, const std::string& version = "v1") {
    auto& s = sidecars_[service + "/" + version];
    if (!s) s = std::make_unique<Sidecar>(service, version, stub_.get());
    return *s;
  }
  bool Flush() {
    bool good = true;
    for (auto& [key, s] : sidecars_) good = s->Send() && good;
    for (auto& [key, s] : sidecars_) good = good && s->Await();
    return good;
  }
  void Close() {
    for (auto& [key, s] : sidecars_) s->Close();
  }

  struct Trace {
    std::string id, request;
  };
  Trace NewTrace(const std::string& request = "") {
    Trace t;
    for (int i = 0; i < 16; ++i) t.id += static_cast<char>(rng_());
    t.request = request.empty() ? "req-" + std::to_string(++requests_) : request;
    return t;
  }
  std::string SpanId() {
    std::string s;
    for (int i = 0; i < 8; ++i) s += static_cast<char>(rng_() | 1);
    return s;
  }
  // Both ends of one hop; returns {client event, server event}.
  std::pair<pb::RequestEvent*, pb::RequestEvent*> Hop(const Trace& t, const std::string& parent, const std::string& from, const std::string& to,
                                                      const std::string& version, uint64_t start_ns, uint64_t us, uint32_t status,
                                                      const std::string& protocol, const std::string& path, std::string* server_span) {
    auto* c = At(from).Add();
    auto* s = At(to, version).Add();
    std::string span = SpanId();
    *server_span = SpanId();
    for (auto* e : {c, s}) {
      e->set_trace_id(t.id), e->set_request_id(t.request), e->set_protocol(protocol), e->set_status(status);
      if (protocol != "tcp") e->set_method(protocol == "grpc" ? "POST" : "GET"), e->set_path(path), e->set_authority(to);
      if (protocol == "grpc") e->set_grpc_status(status == 200 ? 0 : 14);
      e->set_source_identity(Identity(from)), e->set_destination_identity(Identity(to)), e->set_tls_version("TLSv1.3");
      e->set_request_bytes(220), e->set_response_bytes(1'400);
    }
    c->set_direction(pb::OUTBOUND), c->set_span_id(span), c->set_parent_span_id(parent);
    c->set_start_unix_ns(start_ns), c->set_duration_us(us), c->set_cluster("outbound|80||" + to + ".default");
    auto* a = c->add_attempts();
    a->set_endpoint("10.77.0." + std::to_string(10 + to.size() % 40) + ":8000"), a->set_endpoint_workload(to + "-" + version);
    a->set_endpoint_version(version), a->set_outcome("ok"), a->set_status(status), a->set_duration_us(us - us / 20);
    a->set_healthy_hosts(2), a->set_total_hosts(2), a->set_active_requests(3), a->set_max_requests(1'024), a->set_connection_reused(true);
    s->set_direction(pb::INBOUND), s->set_span_id(*server_span), s->set_parent_span_id(span);
    s->set_start_unix_ns(start_ns + us * 30), s->set_duration_us(us - us / 12), s->set_cluster("inbound|8000");
    s->set_downstream_address("10.77.0.9:40112");
    if (status >= 400) c->set_response_detail("via_upstream"), s->set_response_detail("via_upstream");
    return {c, s};
  }
  uint64_t Us(double mean) { return static_cast<uint64_t>(std::lognormal_distribution<>(std::log(mean * 1'000), 0.45)(rng_)); }
  bool Chance(double p) { return std::uniform_real_distribution<>()(rng_) < p; }

  // One visit: loadgen → frontend → catalog, cart → redis, sometimes checkout → cart, pricing.
  void Visit(uint64_t at) {
    Trace t = NewTrace();
    std::string front, span, deep;
    bool v2 = Chance(0.1), broken = v2 && Chance(0.4);
    uint64_t redis = Us(0.6), cart = redis + Us(2.5), catalog = Us(4), pricing = Us(1.8), checkout = pricing + cart + Us(3);
    bool buys = Chance(0.3), price_fails = buys && Chance(0.03);
    uint32_t cart_status = broken ? 500 : 200, status = cart_status == 500 ? 502 : 200;
    uint64_t total = catalog + cart + (buys ? checkout : 0) + Us(2);
    Hop(t, "", "loadgen", "frontend", "v1", at, total, status, "http/1.1", buys ? "/checkout" : "/", &front);
    Hop(t, front, "frontend", "catalog", "v1", at + 800'000, catalog, 200, "http/1.1", "/items", &span);
    auto [client, server] = Hop(t, front, "frontend", "cart", v2 ? "v2" : "v1", at + 900'000 + catalog * 1'000, cart, cart_status, "http/1.1", "/cart/42", &span);
    client->set_policy("Route/default/cart"), client->set_policy_revision(14), client->set_cluster(std::string("outbound|80|") + (v2 ? "v2" : "v1") + "|cart.default");
    Hop(t, span, "cart", "redis", "v1", at + 1'000'000 + catalog * 1'000 + 1'000 * (cart - redis) / 2, redis, 0, "tcp", "", &deep);
    if (!buys) return;
    uint64_t begin = at + 1'000'000 + (catalog + cart) * 1'000;
    Hop(t, front, "frontend", "checkout", "v1", begin, checkout, 200, "http/1.1", "/checkout", &span);
    Hop(t, span, "checkout", "cart", "v1", begin + 400'000, cart, 200, "http/1.1", "/cart/42", &deep);
    auto priced = Hop(t, span, "checkout", "pricing", "v1", begin + 500'000 + cart * 1'000, pricing, 200, "grpc", "/shop.Pricing/Quote", &deep);
    if (price_fails) priced.first->set_grpc_status(13), priced.second->set_grpc_status(13);
  }

  // A failing hop frontend → service seen by the caller only.
  pb::RequestEvent* CallerOnly(const Trace& t, const std::string& service, uint64_t at, uint32_t status, const char* flags, const char* outcome,
                               const char* detail) {
    std::string front, unused;
    Hop(t, "", "loadgen", "frontend", "v1", at, 9'000, status, "http/1.1", "/" + service, &front);
    auto* c = At("frontend").Add();
    c->set_direction(pb::OUTBOUND), c->set_trace_id(t.id), c->set_request_id(t.request), c->set_span_id(SpanId()), c->set_parent_span_id(front);
    c->set_start_unix_ns(at + 1'000'000), c->set_duration_us(7'000), c->set_protocol("http/1.1"), c->set_method("GET"), c->set_path("/" + service);
    c->set_authority(service), c->set_status(status), c->set_response_flags(flags), c->set_cluster("outbound|80||" + service + ".default");
    c->set_source_identity(Identity("frontend")), c->set_tls_version("TLSv1.3"), c->set_destination_identity(Identity(service));
    auto* a = c->add_attempts();
    a->set_endpoint("10.77.0.17:8000"), a->set_endpoint_workload(service + "-v1"), a->set_endpoint_version("v1"), a->set_outcome(outcome);
    a->set_detail(detail), a->set_duration_us(3'200), a->set_healthy_hosts(1), a->set_total_hosts(2), a->set_active_requests(3), a->set_max_requests(1'024);
    return c;
  }

  void Failures(uint64_t at) {
    CallerOnly(NewTrace("demo-refused"), "catalog", at, 503, "UF,URX", "connect_refused", "delayed connect error: Connection refused");
    CallerOnly(NewTrace("demo-reset"), "catalog", at, 503, "UC", "reset", "connection termination");
    std::string span, deep;
    auto late = Hop(NewTrace("demo-timeout"), "", "frontend", "catalog", "v1", at, 3'000'000, 504, "http/1.1", "/items", &span);
    late.first->set_response_flags("UT"), late.first->set_policy("Route/default/catalog"), late.first->set_policy_revision(6);
    late.first->mutable_attempts(0)->set_outcome("timeout"), late.first->mutable_attempts(0)->set_duration_us(3'000'000);
    late.second->set_response_flags("DC"), late.second->set_status(0);
    auto* full = CallerOnly(NewTrace("demo-breaker"), "checkout", at, 503, "UO", "overflow", "max_requests");
    full->mutable_attempts(0)->set_active_requests(100), full->mutable_attempts(0)->set_max_requests(100), full->mutable_attempts(0)->clear_endpoint();
    full->set_policy("Traffic/default/checkout"), full->set_policy_revision(7);
    auto* spent = CallerOnly(NewTrace("demo-budget"), "catalog", at, 503, "UO,UF", "connect_refused", "delayed connect error: Connection refused");
    auto* stopped = spent->mutable_attempts(0);
    stopped->set_not_retried("retry_budget"), stopped->set_retry_budget_percent(20), stopped->set_active_retries(10), stopped->set_max_retries(10);
    auto* gone = CallerOnly(NewTrace("demo-unhealthy"), "checkout", at, 503, "UH", "no_healthy_host", "");
    auto* none = gone->mutable_attempts(0);
    none->set_healthy_hosts(0), none->set_total_hosts(1), none->clear_endpoint(), none->clear_endpoint_workload(), none->clear_endpoint_version();
    auto* ejection = none->add_ejections();
    ejection->set_endpoint("10.77.0.17:8000"), ejection->set_endpoint_workload("checkout-v1"), ejection->set_endpoint_version("v1");
    ejection->set_rule("consecutive_local_origin_failure"), ejection->set_kinds("timeout"), ejection->set_errors(5);
    ejection->set_at_unix_ms(at / 1'000'000 - 2'000), ejection->set_until_unix_ms(at / 1'000'000 + 8'000);
    gone->set_policy("Traffic/default/checkout"), gone->set_policy_revision(7);
    auto denied = Hop(NewTrace("demo-denied"), "", "frontend", "pricing", "v1", at, 900, 403, "http/1.1", "/prices", &span);
    denied.second->set_policy("Authorization/default/pricing/only-checkout@9"), denied.second->set_policy_revision(9);
    denied.second->set_response_detail("rbac_access_denied_matched_policy[Authorization/default/pricing/only-checkout@9]");
    auto* stranger = At("redis").Add();
    stranger->set_direction(pb::INBOUND), stranger->set_request_id("demo-missing"), stranger->set_trace_id(NewTrace().id), stranger->set_span_id(SpanId());
    stranger->set_protocol("tcp"), stranger->set_start_unix_ns(at), stranger->set_duration_us(700), stranger->set_response_flags("DC");
    stranger->set_tls_failure("no_certificate"), stranger->set_downstream_address("10.77.0.99:51234");
    stranger->set_destination_identity(Identity("redis")), stranger->set_policy("MeshTls/default/redis"), stranger->set_policy_revision(3);
    auto* wrong = CallerOnly(NewTrace("demo-wrong"), "checkout", at, 503, "UF", "tls_san_mismatch",
                             "san_mismatch: peer is spiffe://weft.local/ns/default/sa/catalog, expected spiffe://weft.local/ns/default/sa/checkout");
    wrong->mutable_attempts(0)->set_local_address("10.77.0.9:40999");
    auto* met = At("catalog").Add();
    met->set_direction(pb::INBOUND), met->set_trace_id(NewTrace().id), met->set_span_id(SpanId()), met->set_protocol("tcp");
    met->set_start_unix_ns(at + 2'000'000), met->set_duration_us(900), met->set_tls_failure("peer_alert"), met->set_downstream_address("10.77.0.9:40999");
    met->set_response_flags("DC"), met->set_response_detail("peer sent alert: bad certificate"), met->set_destination_identity(Identity("catalog"));
    // A TCP connection behind an application's error: nothing in it names the request.
    Hop(NewTrace("demo-behind"), "", "frontend", "cart", "v1", at, 9'000, 503, "http/1.1", "/cart/42", &span);
    auto refused = Hop(NewTrace(), "", "cart", "redis", "v1", at + 2'000'000, 2'000, 0, "tcp", "", &deep);
    for (auto* e : {refused.first, refused.second}) e->clear_request_id(), e->clear_parent_span_id();
    refused.first->set_response_flags("UC"), refused.first->mutable_attempts(0)->set_local_address("10.77.0.14:41000");
    refused.second->set_trace_id(NewTrace().id), refused.second->set_downstream_address("10.77.0.14:41000");
    refused.second->set_response_flags("UAEX"), refused.second->set_policy("Authorization/default/redis/nobody@11"), refused.second->set_policy_revision(11);
    refused.second->set_response_detail("rbac_access_denied_matched_policy[Authorization/default/redis/nobody@11]");
    auto broken = Hop(NewTrace("demo-rollout"), "", "frontend", "cart", "v2", at, 5'000, 500, "http/1.1", "/cart/42", &span);
    broken.first->set_policy("Route/default/cart"), broken.first->set_policy_revision(14), broken.first->set_cluster("outbound|80|v2|cart.default");
  }
  // A service whose name wants to be markup.
  void Odd(const std::string& name, uint64_t at) {
    std::string span;
    Trace t = NewTrace("demo-odd");
    auto hop = Hop(t, "", "frontend", name, "v1", at, 1'200, 500, "http/1.1", "/" + name, &span);
    hop.first->set_response_detail(name), hop.first->set_policy("Route/default/" + name);
  }

 private:
  std::unique_ptr<pb::Telemetry::Stub> stub_;
  std::map<std::string, std::unique_ptr<Sidecar>> sidecars_;
  std::mt19937_64 rng_{NowNs()};
  uint64_t requests_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  std::string target;
  std::vector<std::string> odd;
  int seconds = 0, backlog = 0;
  double rps = 20;
  CLI::App app{"Made-up traffic of a shop for the telemetry service"};
  app.add_option("--target", target)->required();
  app.add_option("--seconds", seconds, "live traffic for so long");
  app.add_option("--backlog", backlog, "first the last so many seconds at once");
  app.add_option("--rps", rps, "visits a second, about seven hops each");
  app.add_option("--odd-name", odd, "further services of these names");
  CLI11_PARSE(app, argc, argv);
  Shop shop(target);
  bool good = true;
  uint64_t now = NowNs();
  for (int s = backlog; s > 0 && good; --s) {
    uint64_t begin = now - static_cast<uint64_t>(s) * 1'000'000'000;
    for (int i = 0; i < rps; ++i) shop.Visit(begin + static_cast<uint64_t>(i * 9e8 / rps));
    if (s % 10 == 0) good = shop.Flush();
  }
  if (backlog) {
    shop.Failures(now - 4'000'000'000);
    for (const std::string& name : odd) shop.Odd(name, now - 4'000'000'000);
    good = good && shop.Flush();
  }
  auto until = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  for (int n = 0; good && std::chrono::steady_clock::now() < until; ++n) {
    auto next = std::chrono::steady_clock::now() + std::chrono::milliseconds(500);
    for (int i = 0; i < rps / 2; ++i) shop.Visit(NowNs() - 400'000'000 + static_cast<uint64_t>(i) * 1'000'000);
    if (n % 10 == 0) shop.Failures(NowNs() - 3'500'000'000);
    good = shop.Flush();
    std::this_thread::sleep_until(next);
  }
  shop.Close();
  printf("sent=%llu acknowledged=%llu\n", static_cast<unsigned long long>(Sidecar::sent), static_cast<unsigned long long>(Sidecar::acknowledged));
  return good && Sidecar::sent == Sidecar::acknowledged ? 0 : 1;
}
