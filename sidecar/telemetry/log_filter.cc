#include "sidecar/telemetry/log_filter.h"

#include <algorithm>
#include <charconv>

#include "sidecar/telemetry/record_attributes.h"

namespace weft::telemetry {
namespace {

using model::LogFilter;
using proxy::Record;

bool Compare(LogFilter::Op op, uint64_t a, uint64_t b) {
  switch (op) {
    case LogFilter::kEq: return a == b;
    case LogFilter::kGe: return a >= b;
    case LogFilter::kLe: return a <= b;
    case LogFilter::kNe: return a != b;
  }
  return false;
}

bool HasFlag(const Record& r, const std::vector<std::string>& names) {
  for (int i = 0; i < static_cast<int>(proxy::ResponseFlag::kCount); ++i) {
    const auto flag = static_cast<proxy::ResponseFlag>(i);
    if (r.flags.Has(flag) && std::find(names.begin(), names.end(), proxy::ShortName(flag)) != names.end()) return true;
  }
  return false;
}

// A request is sampled alike wherever it passes: by the first eight hexadecimal digits of its id.
bool Sampled(const LogFilter& f, const Record& r, uint64_t random) {
  const std::string_view id = r.request_id;
  if (!f.independent && id.size() >= 8) {
    uint64_t by_id = 0;
    const auto [end, error] = std::from_chars(id.data(), id.data() + 8, by_id, 16);
    if (error == std::errc() && end == id.data() + 8) random = by_id;
  }
  return f.sample.Sample(random);
}

// Envoy's reason "service forced": the caller asked for it, or had been asked to, which the version digit of its id says.
bool Forced(const Record& r) {
  constexpr size_t kVersion = 14;
  if (r.request_id.size() == 36 && r.request_id[kVersion] != '4') return r.request_id[kVersion] == 'a';
  return !r.request_headers.Get("x-client-trace-id") && r.request_headers.Get("x-envoy-force-trace");
}

}  // namespace

bool Passes(const LogFilter& f, const Record& r, uint64_t random) {
  constexpr uint32_t kTcpConnectionEnd = 3, kDownstreamEnd = 6;
  const auto passes = [&](const LogFilter& child) { return Passes(child, r, random); };
  const auto in_mask = [&](int64_t bit) { return (bit >= 0 && bit < 32 && (f.mask >> bit & 1)) != f.exclude; };
  switch (f.kind) {
    case LogFilter::kAnd: return std::all_of(f.filters.begin(), f.filters.end(), passes);
    case LogFilter::kOr: return std::any_of(f.filters.begin(), f.filters.end(), passes);
    case LogFilter::kStatus: return Compare(f.op, r.status, f.value);
    case LogFilter::kDuration: return Compare(f.op, static_cast<uint64_t>(r.duration_ns / 1'000'000), f.value);
    case LogFilter::kGrpcStatus: {
      constexpr int kUnknown = 2;
      const int status = GrpcStatusOf(r);
      return in_mask(status < 0 ? kUnknown : status);
    }
    case LogFilter::kResponseFlag: return f.flags.empty() ? !r.flags.empty() : HasFlag(r, f.flags);
    case LogFilter::kHeader: return f.header.Match(r.request_headers);
    case LogFilter::kSample: return Sampled(f, r, random);
    case LogFilter::kLogType: return in_mask(r.protocol == proxy::Protocol::kTcp ? kTcpConnectionEnd : kDownstreamEnd);
    case LogFilter::kTraceable: return f.tracing && Forced(r);
    case LogFilter::kNotHealthCheck: return true;
    case LogFilter::kExpression: {
      const RecordAttributes attributes(r);
      cel::Arena arena;
      return f.expression->Evaluate(attributes, arena).IsTrue();
    }
    case LogFilter::kMetadata: {
      const auto v = r.metadata.Get(f.name);
      if (!v) return f.value != 0;
      return f.present || std::any_of(f.strings.begin(), f.strings.end(), [&](const model::StringMatcher& m) { return m.Match(*v); });
    }
  }
  return false;
}

}  // namespace weft::telemetry
