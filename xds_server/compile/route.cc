#include <algorithm>

#include "api/weft/policy/v1/policy.pb.h"
#include "envoy/extensions/retry/host/previous_hosts/v3/previous_hosts.pb.h"
#include "xds_server/compile/header_match.h"
#include "xds_server/compile/parts.h"

namespace weft::server::compile {
namespace {

namespace route = envoy::config::route::v3;

// A failure that is known to have happened before the server saw the request: safe for any method.
// The header is how a callee's sidecar says that its application could not be reached.
constexpr char kUndelivered[] = "connect-failure,refused-stream,reset-before-request,retriable-headers";
constexpr char kUndeliveredHeader[] = "x-weft-undelivered";
constexpr char kSafeMethods[] = "GET|HEAD|OPTIONS|TRACE";
constexpr char kIdempotentMethods[] = "GET|HEAD|OPTIONS|TRACE|PUT|DELETE";

void FinishRetry(route::RetryPolicy* r) {
  if (r->retry_on().find("retriable-headers") != std::string::npos) {
    auto* header = r->add_retriable_headers();
    header->set_name(kUndeliveredHeader);
    header->set_present_match(true);
  }
  auto* predicate = r->add_retry_host_predicate();
  predicate->set_name("envoy.retry_host_predicates.previous_hosts");
  Pack(envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate(), predicate->mutable_typed_config());
  r->set_host_selection_retry_max_attempts(5);
  r->mutable_retry_back_off()->mutable_base_interval()->set_nanos(25'000'000);
  r->mutable_retry_back_off()->mutable_max_interval()->set_nanos(250'000'000);
}

bool OnlyBeforeDelivery(const std::string& word) {
  return word == "retriable-headers" || word == "connect-failure" || word == "refused-stream" || word == "reset-before-request";
}

// How one rule retries: for the methods in `methods` (all when empty) with `on`, for the others with `rest`.
struct RetryPlan {
  std::string methods, on, rest;
  uint32_t attempts = 2;
  const policy::v1::Route::Retry* policy = nullptr;
};

RetryPlan PlanRetry(const policy::v1::Route::Retry* retry, Protocol protocol) {
  RetryPlan plan;
  plan.policy = retry;
  if (!retry) {
    if (protocol == Protocol::kGrpc) {
      plan.on = std::string(kUndelivered) + ",unavailable";
    } else {
      // 502, 503 and 504 also come from the callee's own sidecar when its application is gone.
      plan.methods = kSafeMethods;
      plan.on = std::string(kUndelivered) + ",reset,gateway-error";
      plan.rest = kUndelivered;
    }
    return plan;
  }
  plan.attempts = retry->attempts();
  std::string all, safe;
  for (const std::string& word : retry->on()) {
    all += (all.empty() ? "" : ",") + word;
    if (OnlyBeforeDelivery(word)) safe += (safe.empty() ? "" : ",") + word;
  }
  // A failure to connect is one whether it was this sidecar's or the callee's to its application.
  const bool connect = all.find("connect-failure") != std::string::npos || all.find("5xx") != std::string::npos ||
                       all.find("gateway-error") != std::string::npos;
  if (connect) all += ",retriable-headers", safe += safe.empty() ? "retriable-headers" : ",retriable-headers";
  if (all.empty()) all = std::string(kUndelivered) + ",gateway-error" + (protocol == Protocol::kGrpc ? ",unavailable" : ""), safe = kUndelivered;
  plan.on = all;
  // A gRPC method is always a POST; whoever writes a retry for one means it.
  if (all != safe && !retry->non_idempotent() && protocol != Protocol::kGrpc) plan.methods = kIdempotentMethods, plan.rest = safe;
  return plan;
}

void SetRetry(const RetryPlan& plan, const std::string& on, route::RouteAction* action) {
  if (plan.attempts == 0 || on.empty()) return;
  route::RetryPolicy* r = action->mutable_retry_policy();
  r->set_retry_on(on);
  r->mutable_num_retries()->set_value(plan.attempts);
  if (plan.policy && plan.policy->has_per_try_timeout()) *r->mutable_per_try_timeout() = plan.policy->per_try_timeout();
  FinishRetry(r);
}

void AddMethods(const std::string& regex, bool invert, route::RouteMatch* match) {
  auto* h = match->add_headers();
  h->set_name(":method");
  h->mutable_string_match()->mutable_safe_regex()->set_regex(regex);
  if (invert) h->set_invert_match(true);
}

void SetMatch(const policy::v1::Route::Match& m, route::RouteMatch* out) {
  if (!m.path().empty()) out->set_path(m.path());
  else if (!m.regex().empty()) out->mutable_safe_regex()->set_regex(m.regex());
  else out->set_prefix(m.prefix().empty() ? "/" : m.prefix());
  if (m.methods_size() == 1) {
    auto* h = out->add_headers();
    h->set_name(":method");
    h->mutable_string_match()->set_exact(m.methods(0));
  } else if (m.methods_size() > 1) {
    std::string any;
    for (const std::string& method : m.methods()) {
      if (!any.empty()) any += "|";
      for (char c : method) {
        if (!isalnum(static_cast<unsigned char>(c))) any += '\\';
        any += c;
      }
    }
    AddMethods(any, false, out);
  }
  for (const auto& h : m.headers()) SetHeaderMatch(h, out->add_headers());
}

class Table {
 public:
  Table(const World& world, const Service& service, const Port& port, route::VirtualHost* host)
      : world_(world), service_(service), port_(port), host_(host) {}

  void Rule(const PolicyObject& policy, const policy::v1::Route::Rule& rule, int index) {
    policy::v1::Route::Match everything;
    std::vector<const policy::v1::Route::Match*> matches;
    for (const auto& m : rule.matches()) matches.push_back(&m);
    if (matches.empty()) matches.push_back(&everything);
    const std::string name = rule.name().empty() ? "rule-" + std::to_string(index) : rule.name();
    for (const auto* m : matches) {
      route::Route r;
      r.set_name(name);
      SetMatch(*m, r.mutable_match());
      SetProvenance({&policy, nullptr}, r.mutable_metadata());
      SetWeft(r.mutable_metadata(), "rule", name);
      if (rule.respond_status() != 0) {
        r.mutable_direct_response()->set_status(rule.respond_status());
        if (!rule.respond_body().empty()) r.mutable_direct_response()->mutable_body()->set_inline_string(rule.respond_body());
        *host_->add_routes() = std::move(r);
        continue;
      }
      Destinations(rule, r.mutable_route());
      if (!rule.rewrite_prefix().empty()) r.mutable_route()->set_prefix_rewrite(rule.rewrite_prefix());
      if (rule.has_timeout()) *r.mutable_route()->mutable_timeout() = rule.timeout();
      Finish(std::move(r), rule.has_timeout(), PlanRetry(rule.has_retry() ? &rule.retry() : nullptr, port_.protocol));
    }
  }

  void Default() {
    route::Route r;
    r.set_name("default");
    r.mutable_match()->set_prefix("/");
    r.mutable_route()->set_cluster(ClusterName(service_.name, port_.service_port, ""));
    Finish(std::move(r), false, PlanRetry(nullptr, port_.protocol));
  }

 private:
  std::string Cluster(const policy::v1::Route::Destination& to) {
    Name target = to.service().empty() ? service_.name : ParseServiceRef(to.service(), service_.name.ns);
    const Service* s = world_.FindService(target);
    Port port = TargetPort(world_, target, static_cast<uint16_t>(to.port()), port_);
    return ClusterName(target, port.service_port, s && s->external() ? "" : to.version());
  }

  void Destinations(const policy::v1::Route::Rule& rule, route::RouteAction* action) {
    if (rule.to_size() == 0) {
      action->set_cluster(ClusterName(service_.name, port_.service_port, ""));
    } else if (rule.to_size() == 1) {
      action->set_cluster(Cluster(rule.to(0)));
    } else {
      for (const auto& to : rule.to()) {
        auto* w = action->mutable_weighted_clusters()->add_clusters();
        w->set_name(Cluster(to));
        w->mutable_weight()->set_value(to.weight());
      }
    }
  }

  // Timeouts and retries; one route, or two when methods that may be repeated are retried on more.
  void Finish(route::Route r, bool has_timeout, const RetryPlan& plan) {
    // No limit on the whole exchange by default: it would cut streams and long downloads; idle streams end after 5 min.
    if (!has_timeout) r.mutable_route()->mutable_timeout();
    if (port_.protocol == Protocol::kGrpc) {
      r.mutable_route()->mutable_max_stream_duration()->mutable_grpc_timeout_header_max();  // honour the caller's deadline
      if (!has_timeout) r.mutable_route()->mutable_max_stream_duration()->mutable_max_stream_duration();
    }
    if (plan.methods.empty()) {
      SetRetry(plan, plan.on, r.mutable_route());
      *host_->add_routes() = std::move(r);
      return;
    }
    route::Route repeatable = r;
    AddMethods(plan.methods, false, repeatable.mutable_match());
    SetRetry(plan, plan.on, repeatable.mutable_route());
    *host_->add_routes() = std::move(repeatable);
    SetRetry(plan, plan.rest, r.mutable_route());
    *host_->add_routes() = std::move(r);
  }

  const World& world_;
  const Service& service_;
  const Port& port_;
  route::VirtualHost* host_;
};

}  // namespace

Port TargetPort(const World& world, const Name& service, uint16_t wanted, const Port& own) {
  const Service* s = world.FindService(service);
  const uint16_t number = wanted ? wanted : own.service_port;
  if (s) {
    if (const Port* p = s->FindPort(number)) return *p;
    if (!wanted) {
      for (const Port& p : s->ports) {
        if (IsHttp(p.protocol)) return p;
      }
    }
  }
  Port p = own;
  p.service_port = p.target_port = number;
  return p;
}

std::vector<route::RouteConfiguration> Routes(const World& world) {
  std::vector<route::RouteConfiguration> out;
  for (const auto& [name, service] : world.services) {
    for (const Port& port : service.ports) {
      if (!IsHttp(port.protocol)) continue;
      route::RouteConfiguration config;
      config.set_name(RouteName(name, port.service_port));
      route::VirtualHost* host = config.add_virtual_hosts();
      host->set_name(name.ToString() + ":" + std::to_string(port.service_port));
      host->add_domains("*");
      Table table(world, service, port, host);
      if (const PolicyObject* policy = world.FindPolicy("Route", name)) {
        int i = 0;
        for (const auto& rule : policy->object->route().rules()) table.Rule(*policy, rule, i++);
      }
      table.Default();
      out.push_back(std::move(config));
    }
  }
  return out;
}

}  // namespace weft::server::compile
