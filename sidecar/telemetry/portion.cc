#include "sidecar/telemetry/portion.h"

#include <utility>

namespace weft::telemetry {
namespace {
constexpr size_t kKeepText = 256u << 10, kKeepPlaces = 16, kKeepSpare = 16;

void ClearText(std::string& text) {
  if (text.capacity() > kKeepText) text = std::string();
  text.clear();
}
}  // namespace

void EventPortion::Clear() {
  ClearText(bytes);
  config_revision = dropped = 0;
  open.clear(), ended.clear();
}

Portion::Lines& Portion::LinesOf(const std::string& path) {
  for (Lines& l : lines) {
    if (l.path == path) return l;
  }
  return lines.emplace_back(Lines{path, {}});
}

Portion::Entries& Portion::EntriesOf(const std::shared_ptr<const model::GrpcLog>& log) {
  for (Entries& e : entries) {
    if (e.log == log) return e;
  }
  return entries.emplace_back(Entries{log, {}, {}});
}

size_t Portion::bytes() const {
  size_t n = events.bytes.size();
  for (const Lines& l : lines) n += l.text.size();
  for (const Entries& e : entries) n += e.bytes.size();
  return n;
}

bool Portion::empty() const { return bytes() == 0 && events.empty(); }

void Portion::Clear() {
  if (lines.size() > kKeepPlaces) lines.clear();
  for (Lines& l : lines) ClearText(l.text);
  entries.clear();  // they hold their log's configuration
  events.Clear();
}

bool Handover::Put(std::unique_ptr<Portion>& portion, bool last) {
  bool first;
  {
    std::lock_guard lock(mu_);
    if (!last && bytes_ >= kMaxWaiting) return false;
    first = waiting_.empty();
    bytes_ += portion->bytes();
    waiting_.push_back(std::move(portion));
    if (!spare_.empty()) portion = std::move(spare_.back()), spare_.pop_back();
  }
  if (first) wake_();
  return true;
}

void Handover::Take(const std::function<void(Portion&)>& fn) {
  std::vector<std::unique_ptr<Portion>> taken;
  {
    std::lock_guard lock(mu_);
    taken.swap(waiting_);
    bytes_ = 0;
  }
  for (auto& p : taken) {
    fn(*p);
    p->Clear();
  }
  std::lock_guard lock(mu_);
  for (auto& p : taken) {
    if (spare_.size() < kKeepSpare) spare_.push_back(std::move(p));
  }
}

}  // namespace weft::telemetry
