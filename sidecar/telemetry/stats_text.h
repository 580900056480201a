// How stats are shown: Prometheus text (with Envoy's names: "envoy_" + the base name, tags as labels; base names "istiocustom.x" are "x"), Envoy's /stats
// lines, and its JSON.
//
//   StatsFilter f; f.used_only = true; f.SetRegex("^cluster\\.");
//   std::string text = PrometheusText(f);
//
// Threads: any (the registry locks); meant for main.
#pragma once

#include <memory>
#include <string>

#include "sidecar/base/result.h"
#include "sidecar/base/stats.h"

namespace re2 {
class RE2;
}

namespace weft::telemetry {

struct StatsFilter {
  bool used_only = false;
  std::shared_ptr<const re2::RE2> regex;  // matched anywhere in the full name
  enum Kinds : uint8_t { kAll, kCounters, kGauges, kHistograms } kinds = kAll;

  base::Status SetRegex(const std::string& pattern);
  bool Pass(const base::StatView& stat) const;
};

// more: rows besides those of the registry.
std::string PrometheusText(const StatsFilter& filter, base::StatSource* more = nullptr);
std::string StatsText(const StatsFilter& filter, base::StatSource* more = nullptr);  // "name: value" lines, histograms last
std::string StatsJson(const StatsFilter& filter, base::StatSource* more = nullptr);

}  // namespace weft::telemetry
