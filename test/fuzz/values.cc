// Values inside of messages: header fields, paths, authorities, trace context, access log formats, the admin's targets.
#include <algorithm>
#include <string>
#include <vector>

#include "sidecar/admin/http_server.h"
#include "sidecar/base/check.h"
#include "sidecar/cel/expression.h"
#include "sidecar/http/authority.h"
#include "sidecar/http/headers.h"
#include "sidecar/http/ids.h"
#include "sidecar/http/path.h"
#include "sidecar/model/address.h"
#include "sidecar/proxy/format.h"
#include "sidecar/telemetry/record_attributes.h"
#include "test/fuzz/fuzz.h"

namespace weft::fuzz {
namespace {

using http::HeaderMap;

// Whoever reads the normal form sees what policy and router saw: no dot segments, no backslash, and nothing changes when it
// is normalised again.
void Path(std::string_view bytes) {
  if (bytes.empty()) return;
  const http::PathOptions options{.merge_slashes = (bytes[0] & 1) != 0, .reject_encoded_slash = (bytes[0] & 2) != 0, .unescape_slash = (bytes[0] & 4) != 0};
  std::string target = "/" + std::string(bytes.substr(1)), out;
  http::SplitTarget split = http::SplitPath(target);
  WEFT_CHECK(split.path.size() + split.query.size() + split.has_query == target.size());
  if (!http::ValidTarget(target)) return;
  switch (http::NormalizePath(target, options, out)) {
    case http::PathOutcome::kUnchanged: out = target; break;
    case http::PathOutcome::kUnescaped: WEFT_CHECK(options.unescape_slash); [[fallthrough]];
    case http::PathOutcome::kChanged: WEFT_CHECK(out != target); break;
    case http::PathOutcome::kInvalid: return;
    case http::PathOutcome::kEncodedSlash: WEFT_CHECK(options.reject_encoded_slash); return;
  }
  WEFT_CHECK(http::ValidTarget(out) && out[0] == '/' && out.size() <= target.size());
  http::SplitTarget normal = http::SplitPath(out);
  WEFT_CHECK(normal.query == split.query && normal.has_query == split.has_query, "the query changed");
  std::string path = std::string(normal.path) + "/";
  WEFT_CHECK(path.find("/../") == std::string::npos && path.find("/./") == std::string::npos && path.find('\\') == std::string::npos, path);
  WEFT_CHECK(!options.merge_slashes || normal.path.find("//") == std::string_view::npos, path);
  std::string again;
  WEFT_CHECK(http::NormalizePath(out, options, again) == http::PathOutcome::kUnchanged, "not stable: ", out);
}

void Authority(std::string_view bytes) {
  auto a = http::ParseAuthority(bytes);
  if (!a) return;
  WEFT_CHECK(!a->host.empty() && a->host.size() <= bytes.size());
  WEFT_CHECK(a->host.find_first_of(std::string_view(",/\\@#? \t\r\n\0", 12)) == std::string_view::npos, bytes);
}

void Traceparent(std::string_view bytes) {
  auto t = http::ParseTraceparent(bytes);
  if (!t) return;
  WEFT_CHECK((t->trace_hi || t->trace_lo) && t->span_id);
  char text[http::kTraceparentLength];
  std::string_view written = http::FormatTraceparent(*t, text);
  WEFT_CHECK(written.substr(2, 53).substr(0, 51) == bytes.substr(2, 51), "ids changed");
  auto back = http::ParseTraceparent(written);
  WEFT_CHECK(back && back->trace_hi == t->trace_hi && back->trace_lo == t->trace_lo && back->span_id == t->span_id);
}

void IpAddress(std::string_view bytes) {
  if (auto ip = model::Ip::Parse(bytes)) {
    auto back = model::Ip::Parse(ip->ToString());
    WEFT_CHECK(back && *back == *ip && bytes.find('\0') == std::string_view::npos, ip->ToString());
  }
  size_t slash = bytes.find('/');
  if (slash == std::string_view::npos || slash + 1 >= bytes.size()) return;
  auto cidr = model::Cidr::Make(std::string(bytes.substr(0, slash)), static_cast<unsigned char>(bytes[slash + 1]));
  if (cidr) WEFT_CHECK(cidr->Contains(cidr->ip));
}

// Operations on a map beside the same ones on a plain list.
void HeaderOperations(std::string_view bytes) {
  static constexpr const char* kNames[] = {":path", ":method", "host", "cookie", "x-a", "x-b", "content-length", "traceparent", "a", "x-very-long-name-of-a-header"};
  HeaderMap map, copy;
  std::vector<std::pair<std::string, std::string>> list;
  auto next = [&] {
    if (bytes.empty()) return 0;
    int c = static_cast<unsigned char>(bytes[0]);
    bytes.remove_prefix(1);
    return c;
  };
  while (!bytes.empty()) {
    int op = next();
    std::string name = kNames[(op >> 3) % std::size(kNames)];
    const auto wanted = static_cast<size_t>(next());
    size_t n = std::min(wanted, bytes.size());
    std::string value(bytes.substr(0, n));
    bytes.remove_prefix(n);
    auto first = std::find_if(list.begin(), list.end(), [&](const auto& f) { return f.first == name; });
    switch (op & 7) {
      case 0:
      case 1:
      case 2:
        map.Add(name, value);
        list.emplace_back(name, value);
        break;
      case 3:
      case 4:
        map.Set(name, value);
        if (first == list.end()) {
          list.emplace_back(name, value);
        } else {
          first->second = value;
          auto after = first + 1;
          list.erase(std::remove_if(after, list.end(), [&](const auto& f) { return f.first == name; }), list.end());
        }
        break;
      case 5:
        map.Remove(name);
        list.erase(std::remove_if(list.begin(), list.end(), [&](const auto& f) { return f.first == name; }), list.end());
        break;
      case 6:
        map.CopyTo(copy);
        std::swap(map, copy);
        break;
      case 7:
        if (value == "c") map.Clear(), list.clear();
        break;
    }
    auto got = map.Get(name);
    first = std::find_if(list.begin(), list.end(), [&](const auto& f) { return f.first == name; });
    WEFT_CHECK(got.has_value() == (first != list.end()) && (!got || *got == first->second), name);
  }
  WEFT_CHECK(map.size() == list.size());
  size_t i = 0, total = 0;
  for (const auto& e : map) {
    WEFT_CHECK(e.name() == list[i].first && e.value() == list[i].second, "field ", i);
    total += e.name().size() + e.value().size();
    ++i;
  }
  WEFT_CHECK(i == list.size() && map.bytes() == total);
}

void AccessLogFormat(std::string_view bytes) {
  static const proxy::Record* record = [] {
    auto* r = new proxy::Record;
    r->protocol = proxy::Protocol::kHttp2;
    r->method = "GET", r->path = "/cart?x=\"1\"", r->authority = "shop", r->status = 200, r->grpc_status = 5;
    r->start_unix_ns = 1'700'000'000'123'456'789, r->duration_ns = 12'345'678;
    r->upstream_host = "10.0.0.1:80", r->downstream_remote = *model::Address::FromIp("::1", 5000), r->downstream_local = model::Address::Pipe("/run/x.sock");
    r->request_headers.Add("x-a", "\xff\n\"value\"");
    r->flags.Set(proxy::ResponseFlag::kNoRouteFound);
    return r;
  }();
  auto f = proxy::Format::Compile(bytes);
  if (!f) return;
  std::string text, json;
  f->Append(*record, false, &text);
  f->AppendJson(*record, true, &json);
  f->Missing(*record);
  WEFT_CHECK(!json.empty() && json.find('\n') == std::string::npos, json);
}

// The first byte chooses what the expression may use, the rest is the expression.
void CelExpression(std::string_view bytes) {
  static const proxy::Record* record = [] {
    auto* r = new proxy::Record;
    r->protocol = proxy::Protocol::kHttp11;
    r->method = "GET", r->path = "/p?q=1", r->authority = "shop", r->status = 200, r->duration_ns = 12'345'678, r->start_unix_ns = 1'700'000'000'123'456'789;
    r->request_headers.Add("x-a", "\xff\n"), r->request_headers.Add("x-many", "1"), r->request_headers.Add("x-many", "2");
    r->metadata.Add("a:k", "v");
    return r;
  }();
  if (bytes.empty() || bytes.size() > 4096) return;
  const cel::Options options{(bytes[0] & 1) != 0, (bytes[0] & 2) != 0, (bytes[0] & 4) != 0, (bytes[0] & 8) != 0};
  const std::string text(bytes.substr(1));
  auto e = cel::Expression::Compile(text, options);
  if (!e) {
    WEFT_CHECK(!e.error().message().empty());
    return;
  }
  for (const auto& path : e->Paths()) WEFT_CHECK(!path.empty() && !path[0].empty());
  const telemetry::RecordAttributes attributes(*record);
  cel::Arena arena, again, negated;
  const cel::Value v = e->Evaluate(attributes, arena), same = e->Evaluate(attributes, again);
  WEFT_CHECK(v.kind == same.kind && v.text == same.text, "not the same twice: ", text);
  WEFT_CHECK(cel::TypeName(v).size() > 0);
  if (v.kind != cel::Value::kBool) return;
  // In parentheses it may nest too deep, but says the opposite otherwise.
  auto opposite = cel::Expression::Compile("!(" + text + "\n)", options);
  if (!opposite) return;
  const cel::Value w = opposite->Evaluate(attributes, negated);
  WEFT_CHECK(w.IsError() || (w.kind == cel::Value::kBool && w.b != v.b), text);
}

void AdminTarget(std::string_view bytes) {
  admin::Request r = admin::HttpServer::Parse("GET", bytes);
  WEFT_CHECK(r.path.size() <= bytes.size());
}

}  // namespace

std::vector<Target> ValueTargets() {
  return {{"path", Path},           {"authority", Authority},         {"traceparent", Traceparent},  {"ip_address", IpAddress},
          {"headers", HeaderOperations}, {"access_log", AccessLogFormat}, {"admin_target", AdminTarget},
          {"cel", CelExpression}};
}

}  // namespace weft::fuzz
