// HTTP filters in order, then the route. A filter is a branch of one switch: configuration in, verdict out.
#include "sidecar/filters/fault/fault.h"
#include "sidecar/filters/rbac/rbac.h"
#include "sidecar/http/status.h"
#include "sidecar/proxy/exchange.h"

namespace weft::proxy {

using http::Token;

bool Exchange::FindRoute() {
  table_ = snapshot_->Routes(conn_->hcm());
  if (!table_) return false;
  if (table_->operators() && !told_) {  // headers that it adds are readers too
    told_ = true;
    DescribeRecord();
    record_->request_id = down_.head.Value(Token::kXRequestId);
  }
  found_ = table_->Find(down_.head, core_->random().Next(), conn_->tls() != nullptr);
  if (told_ && found_.vhost) record_->virtual_host = found_.vhost->name;
  if (told_ && found_.route) {
    record_->route = found_.route->name;
    record_->cluster = found_.cluster;
    record_->policy = found_.route->weft.policy, record_->policy_revision = found_.route->weft.revision;
  }
  return found_.route != nullptr;
}

bool Exchange::RunFilters() {
  const auto& filters = conn_->hcm().filters;
  while (next_filter_ < filters.size()) {
    const model::HttpFilter& f = filters[next_filter_++];
    const model::PerFilterConfig* own = table_ ? route::PerFilter(*table_, found_, f.name) : nullptr;
    if (own ? own->disabled : f.disabled) continue;
    bool go_on = true;
    switch (f.config.index()) {
      case 0: {
        auto* c = own ? std::get_if<std::shared_ptr<const model::RbacConfig>>(&own->config) : nullptr;
        go_on = RunRbac(c ? **c : *std::get<0>(f.config));
        break;
      }
      case 1: {
        auto* c = own ? std::get_if<std::shared_ptr<const model::FaultConfig>>(&own->config) : nullptr;
        go_on = RunFault(c ? **c : *std::get<1>(f.config));
        break;
      }
      case 2: {
        auto* c = own ? std::get_if<std::shared_ptr<const model::LocalRateLimitConfig>>(&own->config) : nullptr;
        go_on = RunRateLimit(c ? **c : *std::get<2>(f.config));
        break;
      }
      case 3: {
        auto* c = own ? std::get_if<std::shared_ptr<const model::BufferConfig>>(&own->config) : nullptr;
        go_on = RunBuffer(c ? **c : *std::get<3>(f.config));
        break;
      }
      default:
        break;  // router: what follows the filters
    }
    if (!go_on) return false;
  }
  return true;
}

bool Exchange::RunRbac(const model::RbacConfig& config) {
  filters::rbac::Input in;
  in.headers = &down_.head;
  in.peer = conn_->peer_info();
  const model::Address destination = conn_->destination(), peer = conn_->direct_peer();
  in.destination = &destination, in.direct_remote = &peer, in.remote = &record_->downstream_remote;
  in.server_name = conn_->server_name();
  filters::rbac::Verdict v = filters::rbac::Evaluate(config, in);
  HttpStats& stats = conn_->http_stats();
  base::Cells& cells = base::Cells::Local();
  if (v.shadow_evaluated) cells.Add(v.shadow_allowed ? stats.rbac_shadow_allowed : stats.rbac_shadow_denied);
  cells.Add(v.allowed ? stats.rbac_allowed : stats.rbac_denied);
  if (record_->access_logs) NoteRbac(config, v);
  if (v.allowed) return true;
  scratch_ = "rbac_access_denied_matched_policy[";
  scratch_ += v.policy.empty() ? std::string_view("none") : v.policy;
  scratch_ += ']';
  record_->policy = v.policy;
  record_->policy_revision = 0;
  if (size_t at = v.policy.rfind('@'); at != std::string_view::npos) {
    record_->policy_revision = strtoull(std::string(v.policy.substr(at + 1)).c_str(), nullptr, 10);
  }
  LocalReply(403, scratch_, "RBAC: access denied");
  return false;
}

// What Envoy's filter writes as dynamic metadata.
void Exchange::NoteRbac(const model::RbacConfig& config, const filters::rbac::Verdict& v) {
  const auto note = [this](const std::string& prefix, std::string_view key, std::string_view value) {
    (scratch_ = "envoy.filters.http.rbac:").append(prefix).append(key);
    record_->metadata.Set(std::string_view(scratch_), value);
  };
  if (v.shadow_evaluated) {
    if (!v.shadow_policy.empty()) note(config.shadow_stat_prefix, "shadow_effective_policy_id", v.shadow_policy);
    note(config.shadow_stat_prefix, "shadow_engine_result", v.shadow_allowed ? "allowed" : "denied");
  }
  if (!config.rules) return;
  if (!v.policy.empty()) note(config.stat_prefix, "enforced_effective_policy_id", v.policy);
  note(config.stat_prefix, "enforced_engine_result", v.allowed ? "allowed" : "denied");
}

bool Exchange::RunFault(const model::FaultConfig& config) {
  uint64_t r1 = core_->random().Next(), r2 = core_->random().Next();
  auto plan = filters::fault::Decide(config, down_.head, found_.cluster, r1, r2, core_->active_faults);
  if (!plan.abort && plan.delay_ns == 0) return true;
  if (!config.weft.policy.empty()) record_->policy = config.weft.policy, record_->policy_revision = config.weft.revision;
  HttpStats& stats = conn_->http_stats();
  base::Cells& cells = base::Cells::Local();
  ++core_->active_faults;
  fault_counted_ = true;
  cells.Add(stats.fault_active);
  fault_abort_due_ = plan.abort;
  fault_status_ = plan.http_status, fault_grpc_status_ = plan.grpc_status;
  if (plan.delay_ns != 0) {
    cells.Add(stats.fault_delays);
    record_->flags.Set(ResponseFlag::kDelayInjected);
    record_->fault = "delay " + std::to_string(plan.delay_ns / 1'000'000) + "ms";
    phase_ = Phase::kDelay;
    core_->loop()->Arm(&wait_timer_, plan.delay_ns);
    return false;
  }
  EndFault();
  return !AbortByFault();
}

bool Exchange::AbortByFault() {
  if (!fault_abort_due_) return false;
  fault_abort_due_ = false;
  base::Cells::Local().Add(conn_->http_stats().fault_aborts);
  record_->flags.Set(ResponseFlag::kFaultInjected);
  if (!record_->fault.empty()) record_->fault += ", ";
  record_->fault += "abort " + std::to_string(fault_grpc_status_ >= 0 ? static_cast<uint32_t>(fault_grpc_status_) : fault_status_);
  LocalReply(fault_status_ ? fault_status_ : 200, "fault_filter_abort", "fault filter abort", fault_grpc_status_);
  return true;
}

void Exchange::EndFault() {
  if (!fault_counted_) return;
  fault_counted_ = false;
  --core_->active_faults;
  base::Cells::Local().Sub(conn_->http_stats().fault_active);
}

bool Exchange::RunRateLimit(const model::LocalRateLimitConfig& config) {
  using filters::local_ratelimit::Verdict;
  auto* bucket = core_->BucketOf(config);
  Verdict v = filters::local_ratelimit::Evaluate(config, bucket, core_->loop()->now(), core_->random().Next(), core_->random().Next());
  RateLimitStats& stats = core_->RateLimit(config.stat_prefix);
  base::Cells& cells = base::Cells::Local();
  if (v == Verdict::kDisabled) return true;
  cells.Add(stats.enabled);
  if (v == Verdict::kOk) {
    cells.Add(stats.ok);
    return true;
  }
  cells.Add(stats.limited);
  if (v == Verdict::kLimitedNotEnforced) return true;
  cells.Add(stats.enforced);
  record_->flags.Set(ResponseFlag::kRateLimited);
  reply_headers_ = &config.response_headers_to_add;
  LocalReply(config.status, "local_rate_limited", "local_rate_limited", config.rate_limited_as_resource_exhausted ? 8 : -1);
  return false;
}

// A tunnel has no end to wait for: it passes.
bool Exchange::RunBuffer(const model::BufferConfig& config) {
  if (upgrade_ || (RequestEnded() && down_.body.empty() && !(down_.bits & codec::Inbound::kTrailers))) return true;
  buffer_limit_ = config.max_request_bytes;
  phase_ = Phase::kBuffer;
  return Gather();
}

// Takes what has come of the body, to be sent (and sent again) as a retry would; true: it is complete.
bool Exchange::Gather() {
  if (size_t n = down_.body.size()) {
    if (replay_.size() + n > buffer_limit_) {
      base::Cells::Local().Add(conn_->http_stats().rq_too_large);
      replay_.Clear(), down_.body.Clear();
      if (!conn_->http2()) conn_->codec().StartDrain();  // the rest is not waited for
      LocalReply(413, "request_payload_too_large", "Payload Too Large");
      return false;
    }
    replay_.Move(down_.body, n);
    conn_->Consumed(id_, n);
  }
  if (!RequestEnded()) return false;
  phase_ = Phase::kHead;
  http::HeaderMap& head = down_.head;
  if (!head.Has(Token::kContentLength)) head.Add(Token::kContentLength, std::to_string(replay_.size()));
  return true;
}

void Exchange::Redirect() {
  bool tls = conn_->tls() != nullptr;
  uint32_t status = 301;
  if (found_.tls_required) {
    scratch_ = "https://";
    scratch_ += down_.head.Value(Token::kAuthority);
    scratch_ += down_.head.Value(Token::kPath);
  } else {
    const model::Route& r = *found_.route;
    scratch_ = route::RedirectLocation(r.redirect, r.match, down_.head, tls);
    status = r.redirect.status;
  }
  base::Cells::Local().Add(conn_->http_stats().direct_response);
  location_ = scratch_;
  LocalReply(status, "direct_response", "");
}

void Exchange::Route() {
  base::Cells& cells = base::Cells::Local();
  HttpStats& stats = conn_->http_stats();
  cells.Add(stats.routed);
  if (found_.tls_required) return Redirect();
  if (!table_ || !found_.route) {
    cells.Add(stats.no_route);
    record_->flags.Set(ResponseFlag::kNoRouteFound);
    return LocalReply(404, "route_not_found", "");
  }
  const model::Route& r = *found_.route;
  switch (r.action) {
    case model::Route::kDirectResponse:
      cells.Add(stats.direct_response);
      return LocalReply(r.direct.status, "direct_response", r.direct.body);
    case model::Route::kRedirect: return Redirect();
    case model::Route::kNonForwarding:
      record_->flags.Set(ResponseFlag::kNoRouteFound);
      return LocalReply(404, "route_not_found", "");
    case model::Route::kForward: break;
  }
  const model::Forward& f = r.forward;
  if (upgrade_) {
    std::string_view type = record_->websocket ? std::string_view("websocket") : std::string_view("CONNECT");
    bool allowed = false;
    for (const auto& u : conn_->hcm().upgrades) allowed |= record_->websocket ? u == "websocket" : u == "connect";
    for (const auto& [name, enabled] : f.upgrades)
      if (name == type || (type == "CONNECT" && name == "connect")) allowed = enabled;
    if (!allowed) return LocalReply(403, "upgrade_failed", "");
  }
  uint32_t slot = UINT32_MAX;
  if (!found_.cluster.empty() && snapshot_->cluster_index) {
    auto it = snapshot_->cluster_index->find(found_.cluster);
    if (it != snapshot_->cluster_index->end()) slot = it->second;
  }
  if (slot == UINT32_MAX) {
    cells.Add(stats.no_cluster);
    record_->flags.Set(ResponseFlag::kNoClusterFound);
    return LocalReply(f.cluster_not_found_status, "cluster_not_found", "");
  }
  entry_ = snapshot_->clusters[slot].get();
  cluster_ = core_->clusters().Get(snapshot_->clusters[slot]);
  ++cluster_->refs;
  cells.Add(cluster_->stats.rq_active);
  if (told_ && !entry_->config->service.empty()) {
    record_->destination_service = entry_->config->service, record_->destination_namespace = entry_->config->service_namespace;
  }
  int priority = f.high_priority ? 1 : 0;
  thresholds_ = &entry_->config->breakers[priority];
  breakers_ = &entry_->cells->breakers[priority];
  if (!breakers_->TryRequest(*thresholds_)) {
    cells.Add(cluster_->stats.rq_overflow);
    record_->flags.Set(ResponseFlag::kUpstreamOverflow);
    overloaded_ = true;
    FillBreaker(NextAttemptRecord(), "overflow", "max_requests");
    DecidedByCluster();
    return LocalReply(503, "upstream_reset_before_response_started{overflow}",
                      "upstream connect error or disconnect/reset before headers. reset reason: overflow");
  }
  holds_request_ = true;
  bool has_body = !RequestEnded() || !down_.body.empty() || !replay_.empty();
  retry_ = cluster::RetryState(upgrade_ ? nullptr : route::Retry(found_), down_.head, has_body);
  if (found_.vhost->per_request_buffer_limit) replay_limit_ = *found_.vhost->per_request_buffer_limit;
  if (f.idle_timeout_ns) SetIdle(*f.idle_timeout_ns);
  uint64_t longest = f.max_stream_duration_ns.value_or(conn_->hcm().common.max_stream_duration_ns);
  const uint64_t of_cluster = entry_->config->common.max_stream_duration_ns;
  cluster_limits_ = of_cluster && (!longest || of_cluster < longest);
  if (cluster_limits_) longest = of_cluster;
  if (longest) core_->loop()->Arm(&duration_timer_, longest);
  route_timeout_ns_ = upgrade_ ? 0 : f.timeout_ns;
  if (grpc_ && f.grpc_timeout_header_max_ns && grpc_timeout_ns_) {
    uint64_t cap = *f.grpc_timeout_header_max_ns;
    route_timeout_ns_ = cap && grpc_timeout_ns_ > cap ? cap : grpc_timeout_ns_;
  } else if (grpc_ && !f.timeout_set) {
    route_timeout_ns_ = grpc_timeout_ns_;  // streams live as long as their caller says
  }
  ApplyRequestMutations();
  route::RewriteRequest(found_, down_.head);
  StartAttempt();
}

// Envoy's timeout covers the whole response when it was asked for, whether that began before the request's end or after it;
// the default one covers its beginning only, and a tunnel that was answered has none to wait for.
bool Exchange::TimeoutCoversResponse() const { return (found_.route->forward.timeout_set || grpc_timeout_ns_) && !upgrade_; }

void Exchange::ArmRouteTimeout() {
  if (!route_timeout_ns_ || route_timer_.armed() || (response_begun_ && !TimeoutCoversResponse())) return;
  core_->loop()->Arm(&route_timer_, route_timeout_ns_);
}

}  // namespace weft::proxy
