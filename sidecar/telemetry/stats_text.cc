#include "sidecar/telemetry/stats_text.h"

#include <re2/re2.h>

#include <cmath>
#include <map>

#include "sidecar/proxy/format.h"
#include "sidecar/telemetry/proto_wire.h"

namespace weft::telemetry {

namespace {

using base::StatKind;
using base::StatView;

// Istio's metrics carry their own names: its filter has them outside of Envoy's namespace.
constexpr std::string_view kOutside = "istiocustom.";

std::string MetricName(std::string_view base) {
  std::string out = "envoy_";
  if (base.starts_with(kOutside)) base.remove_prefix(kOutside.size()), out.clear();
  for (char c : base) out += std::isalnum(static_cast<unsigned char>(c)) || c == '_' ? c : '_';
  return out;
}

std::string Labels(const StatView& stat) {
  std::string out;
  for (const auto& [key, value] : *stat.tags) {
    if (!out.empty()) out += ',';
    for (char c : key) out += std::isalnum(static_cast<unsigned char>(c)) || c == '_' ? c : '_';
    out += "=\"";
    const std::string text = wire::IsAscii(value) ? value : wire::Repair(value, '?');  // a label must be UTF-8
    for (char c : text) {
      if (c == '\\' || c == '"') out += '\\', out += c;
      else if (c == '\n') out += "\\n";
      else out += c;
    }
    out += '"';
  }
  return out;
}

std::string Double(double v, int digits = 10) {
  char text[32];
  snprintf(text, sizeof text, "%.*g", digits, v);
  return text;
}

constexpr double kQuantiles[] = {0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1};

// What passes of the registry and of what else there is, by name.
template <typename Fn>
void Visit(const StatsFilter& filter, base::StatSource* more, Fn fn) {
  StatView next;
  bool any = more && more->Next(&next);
  auto show = [&](const StatView& s) {
    if (filter.Pass(s)) fn(s);
  };
  base::Stats::Get().Visit([&](const StatView& s) {
    for (; any && next.name < s.name; any = more->Next(&next)) show(next);
    show(s);
  });
  for (; any; any = more->Next(&next)) show(next);
}

}  // namespace

base::Status StatsFilter::SetRegex(const std::string& pattern) {
  re2::RE2::Options options;
  options.set_log_errors(false);
  options.set_max_mem(1 << 20);
  auto re = std::make_shared<re2::RE2>(pattern, options);
  if (!re->ok()) return base::Error("Invalid re2 regex: " + re->error());
  regex = std::move(re);
  return base::Ok{};
}

bool StatsFilter::Pass(const StatView& s) const {
  if (used_only && !s.used) return false;
  if (kinds == kCounters && s.kind != StatKind::kCounter) return false;
  if (kinds == kGauges && s.kind != StatKind::kGauge) return false;
  if (kinds == kHistograms && s.kind != StatKind::kHistogram) return false;
  return !regex || re2::RE2::PartialMatch(re2::StringPiece(s.name.data(), s.name.size()), *regex);
}

std::string PrometheusText(const StatsFilter& filter, base::StatSource* more) {
  // All samples of one metric must stand together under one TYPE line.
  struct Metric {
    StatKind kind;
    std::string lines;
  };
  std::map<std::string, Metric> metrics;
  Visit(filter, more, [&](const StatView& s) {
    std::string name = MetricName(s.base_name), labels = Labels(s);
    Metric& m = metrics.try_emplace(name, Metric{s.kind, {}}).first->second;
    if (m.kind != s.kind) return;
    if (s.kind != StatKind::kHistogram) {
      m.lines += name + "{" + labels + "} " + std::to_string(s.value) + "\n";
      return;
    }
    std::string prefix = labels.empty() ? "" : labels + ",";
    uint64_t sum = 0;
    for (size_t i = 0; i < s.buckets.size(); ++i) {
      sum += s.buckets[i];
      std::string le = i < base::kHistogramBoundsMs.size() ? Double(base::kHistogramBoundsMs[i]) : "+Inf";
      m.lines += name + "_bucket{" + prefix + "le=\"" + le + "\"} " + std::to_string(sum) + "\n";
    }
    m.lines += name + "_sum{" + labels + "} " + Double(s.sum_ms, 15) + "\n";  // bytes of a busy day, and rates of them
    m.lines += name + "_count{" + labels + "} " + std::to_string(s.count) + "\n";
  });
  std::string out;
  for (const auto& [name, m] : metrics) {
    const char* type = m.kind == StatKind::kCounter ? "counter" : m.kind == StatKind::kGauge ? "gauge" : "histogram";
    out += "# TYPE " + name + " " + type + "\n" + m.lines + "\n";
  }
  return out;
}

std::string StatsText(const StatsFilter& filter, base::StatSource* more) {
  std::string values, histograms;
  Visit(filter, more, [&](const StatView& s) {
    if (s.kind != StatKind::kHistogram) {
      values += std::string(s.name) + ": " + std::to_string(s.value) + "\n";
      return;
    }
    histograms += std::string(s.name) + ":";
    if (s.count == 0) histograms += " No recorded values";
    else {
      for (double q : kQuantiles)
        histograms += " P" + Double(q * 100) + "(nan," + Double(std::round(base::HistogramQuantileMs(s, q) * 100) / 100) + ")";
    }
    histograms += "\n";
  });
  return values + histograms;
}

std::string StatsJson(const StatsFilter& filter, base::StatSource* more) {
  std::string out = "{\"stats\":[", histograms;
  bool first = true;
  Visit(filter, more, [&](const StatView& s) {
    if (s.kind != StatKind::kHistogram) {
      if (!first) out += ',';
      first = false;
      out += "{\"name\":";
      proxy::AppendJsonString(s.name, &out);
      out += ",\"value\":" + std::to_string(s.value) + "}";
      return;
    }
    if (!histograms.empty()) histograms += ',';
    histograms += "{\"name\":";
    proxy::AppendJsonString(s.name, &histograms);
    histograms += ",\"values\":[";
    for (size_t i = 0; i < std::size(kQuantiles); ++i) {
      if (i) histograms += ',';
      histograms += "{\"interval\":null,\"cumulative\":" + (s.count ? Double(base::HistogramQuantileMs(s, kQuantiles[i])) : "null") + "}";
    }
    histograms += "]}";
  });
  if (!histograms.empty()) {
    if (!first) out += ',';
    out += "{\"histograms\":{\"supported_quantiles\":[0,25,50,75,90,95,99,99.5,99.9,100],\"computed_quantiles\":[" + histograms + "]}}";
  }
  return out + "]}";
}

}  // namespace weft::telemetry
