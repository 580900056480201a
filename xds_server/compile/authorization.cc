#include "api/weft/policy/v1/policy.pb.h"
#include "envoy/config/rbac/v3/rbac.pb.h"
#include "envoy/extensions/filters/http/fault/v3/fault.pb.h"
#include "envoy/extensions/filters/http/rbac/v3/rbac.pb.h"
#include "envoy/extensions/filters/network/rbac/v3/rbac.pb.h"
#include "xds_server/compile/header_match.h"
#include "xds_server/compile/parts.h"

namespace weft::server::compile {
namespace {

namespace rbac = envoy::config::rbac::v3;
using policy::v1::Authorization;

void SetPrincipal(const Authorization::From& from, const World& world, const std::string& ns, rbac::Principal* out) {
  auto* ids = out->mutable_or_ids();
  for (const std::string& s : from.services()) {
    auto* a = ids->add_ids()->mutable_authenticated();
    // "*": any identity of the trust domain (the connection has proved one), never plaintext.
    if (s != "*") a->mutable_principal_name()->set_exact(SpiffeId(world.trust_domain, ParseServiceRef(s, ns)));
  }
  for (const std::string& s : from.identities()) {
    auto* name = ids->add_ids()->mutable_authenticated()->mutable_principal_name();
    if (!s.empty() && s.back() == '*') name->set_prefix(s.substr(0, s.size() - 1));
    else name->set_exact(s);
  }
}

bool NeedsHttp(const Authorization::To& to) { return to.paths_size() + to.methods_size() > 0; }

void SetPermission(const Authorization::To& to, const Port& port, bool http, rbac::Permission* out) {
  auto* all = out->mutable_and_rules();
  if (http && to.paths_size() > 0) {
    auto* any = all->add_rules()->mutable_or_rules();
    for (const std::string& p : to.paths()) {
      auto* path = any->add_rules()->mutable_url_path()->mutable_path();
      if (p == "*" || p == "/*") path->set_prefix("/");
      else if (p.back() == '*') path->set_prefix(p.substr(0, p.size() - 1));
      else if (p.front() == '*') path->set_suffix(p.substr(1));
      else path->set_exact(p);
    }
  }
  if (http && to.methods_size() > 0) {
    auto* any = all->add_rules()->mutable_or_rules();
    for (const std::string& m : to.methods()) {
      auto* header = any->add_rules()->mutable_header();
      header->set_name(":method");
      header->mutable_string_match()->set_exact(m);
    }
  }
  if (to.ports_size() > 0) {
    auto* any = all->add_rules()->mutable_or_rules();
    for (uint32_t number : to.ports()) {
      // Written as callers see it; the filter sees the application's port.
      any->add_rules()->set_destination_port(number == port.service_port ? port.target_port : number);
    }
  }
  if (all->rules_size() == 0) all->add_rules()->set_any(true);
}

// One action's rules of one object. On TCP, path and method cannot be seen: an ALLOW that needs them never matches, a
// DENY that needs them denies by its other parts; both err on the closed side.
rbac::RBAC Rules(const PolicyObject& object, const World& world, const Port& port) {
  const Authorization& a = object.object->authorization();
  const bool http = IsHttp(port.protocol), allow = a.action() == "ALLOW";
  rbac::RBAC out;
  out.set_action(allow ? rbac::RBAC::ALLOW : rbac::RBAC::DENY);
  int index = 0;
  for (const auto& rule : a.rules()) {
    const std::string name = rule.name().empty() ? "rule-" + std::to_string(index) : rule.name();
    ++index;
    rbac::Policy policy;
    for (const auto& to : rule.to()) {
      if (!http && allow && NeedsHttp(to)) continue;
      SetPermission(to, port, http, policy.add_permissions());
    }
    if (rule.to_size() == 0) policy.add_permissions()->set_any(true);
    if (policy.permissions_size() == 0) continue;
    for (const auto& from : rule.from()) SetPrincipal(from, world, object.name.ns, policy.add_principals());
    if (rule.from_size() == 0) policy.add_principals()->set_any(true);
    (*out.mutable_policies())[object.Reference() + "/" + name + "@" + std::to_string(object.revision)] = std::move(policy);
  }
  return out;
}

// The namespace's object and the service's own.
std::vector<const PolicyObject*> Objects(const World& world, const Name& service) {
  std::vector<const PolicyObject*> out;
  if (const auto* p = world.FindPolicy("Authorization", {service.ns, "default"}); p && service.name != "default") out.push_back(p);
  if (const auto* p = world.FindPolicy("Authorization", service)) out.push_back(p);
  return out;
}

// All DENY before all ALLOW. ALLOW rules of both objects are one set.
std::vector<rbac::RBAC> Evaluate(const World& world, const Name& service, const Port& port) {
  std::vector<rbac::RBAC> out;
  std::optional<rbac::RBAC> allow;
  for (const PolicyObject* p : Objects(world, service)) {
    rbac::RBAC rules = Rules(*p, world, port);
    if (rules.action() == rbac::RBAC::DENY) out.push_back(std::move(rules));
    else if (allow) allow->MergeFrom(rules);
    else allow = std::move(rules);
  }
  if (allow) out.push_back(std::move(*allow));
  return out;
}

}  // namespace

std::vector<NamedFilter> HttpAuthorization(const World& world, const Name& service, const Port& port) {
  std::vector<NamedFilter> out;
  for (const auto& rules : Evaluate(world, service, port)) {
    envoy::extensions::filters::http::rbac::v3::RBAC filter;
    *filter.mutable_rules() = rules;
    NamedFilter f;
    f.name = out.empty() ? "envoy.filters.http.rbac" : "envoy.filters.http.rbac." + std::to_string(out.size());
    Pack(filter, &f.config);
    out.push_back(std::move(f));
  }
  return out;
}

bool AuthorizationNamesPaths(const World& world, const Name& service) {
  for (const PolicyObject* object : Objects(world, service)) {
    for (const auto& rule : object->object->authorization().rules()) {
      for (const auto& to : rule.to()) {
        if (to.paths_size() > 0) return true;
      }
    }
  }
  return false;
}

std::vector<NamedFilter> NetworkAuthorization(const World& world, const Name& service, const Port& port) {
  std::vector<NamedFilter> out;
  for (const auto& rules : Evaluate(world, service, port)) {
    envoy::extensions::filters::network::rbac::v3::RBAC filter;
    *filter.mutable_rules() = rules;
    filter.set_stat_prefix("inbound_" + std::to_string(port.target_port) + "_");
    NamedFilter f;
    f.name = "envoy.filters.network.rbac";
    Pack(filter, &f.config);
    out.push_back(std::move(f));
  }
  return out;
}

std::optional<NamedFilter> FaultFilter(const World& world, const Name& service) {
  const PolicyObject* policy = world.FindPolicy("Fault", service);
  if (!policy) return std::nullopt;
  const auto& fault = policy->object->fault();
  envoy::extensions::filters::http::fault::v3::HTTPFault filter;
  auto percent = [](double p, envoy::type::v3::FractionalPercent* out) {
    out->set_numerator(static_cast<uint32_t>(p * 10'000 + 0.5));
    out->set_denominator(envoy::type::v3::FractionalPercent::MILLION);
  };
  if (fault.abort_percent() > 0) {
    filter.mutable_abort()->set_http_status(fault.abort_status());
    percent(fault.abort_percent(), filter.mutable_abort()->mutable_percentage());
  }
  if (fault.delay_percent() > 0) {
    *filter.mutable_delay()->mutable_fixed_delay() = fault.delay();
    percent(fault.delay_percent(), filter.mutable_delay()->mutable_percentage());
  }
  if (!filter.has_abort() && !filter.has_delay()) return std::nullopt;
  for (const auto& h : fault.headers()) SetHeaderMatch(h, filter.add_headers());
  // The policy behind an injected fault, for the event of a request it hits.
  auto& fields = *filter.mutable_filter_metadata()->mutable_fields();
  fields["policy"].set_string_value(policy->Reference());
  fields["revision"].set_number_value(static_cast<double>(policy->revision));
  NamedFilter f;
  f.name = "envoy.filters.http.fault";
  Pack(filter, &f.config);
  return f;
}

}  // namespace weft::server::compile
