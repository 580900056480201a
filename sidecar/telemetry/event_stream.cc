#include "sidecar/telemetry/event_stream.h"

#include <sys/random.h>

#include <algorithm>
#include <cctype>
#include <charconv>

#include "api/weft/telemetry/v1/telemetry.pb.h"
#include "sidecar/base/log.h"

namespace weft::telemetry {

namespace {

namespace pb = weft::telemetry::v1;

// A cap on every text a peer chooses: an event stays small whatever was sent to us.
std::string Cap(std::string_view s, size_t n = 1024) {
  std::string out(s.substr(0, n));
  // Protobuf strings are UTF-8; bytes that are not would make the whole batch undecodable.
  for (size_t i = 0; i < out.size();) {
    unsigned char c = static_cast<unsigned char>(out[i]);
    size_t len = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
    bool good = len > 0 && i + len <= out.size();
    for (size_t k = 1; good && k < len; ++k) good = (static_cast<unsigned char>(out[i + k]) & 0xc0) == 0x80;
    if (good && ((c == 0xe0 && static_cast<unsigned char>(out[i + 1]) < 0xa0) || (c == 0xed && static_cast<unsigned char>(out[i + 1]) > 0x9f) ||
                 (c == 0xf0 && static_cast<unsigned char>(out[i + 1]) < 0x90) || (c == 0xf4 && static_cast<unsigned char>(out[i + 1]) > 0x8f)))
      good = false;
    if (good) i += len;
    else out[i++] = '?';
  }
  return out;
}

std::string_view WithoutQuery(std::string_view path) { return path.substr(0, path.find_first_of("?#")); }
bool AnySet(const uint8_t* bytes, size_t n) { return std::any_of(bytes, bytes + n, [](uint8_t b) { return b != 0; }); }
uint64_t Us(int64_t ns) { return ns > 0 ? static_cast<uint64_t>(ns) / 1000 : 0; }

// "spiffe://td/ns/shop/sa/cart" -> "cart.shop"
std::string ServiceOf(std::string_view id) {
  size_t ns = id.find("/ns/"), sa = id.find("/sa/");
  if (ns == std::string_view::npos || sa == std::string_view::npos || sa < ns) return "";
  return std::string(id.substr(sa + 4)) + "." + std::string(id.substr(ns + 4, sa - ns - 4));
}

void Fill(const proxy::Record& r, const EventOptions& own, uint64_t number, pb::RequestEvent* e) {
  e->set_number(number);
  e->set_direction(r.direction == proxy::Direction::kInbound ? pb::INBOUND
                   : r.direction == proxy::Direction::kOutbound ? pb::OUTBOUND : pb::DIRECTION_UNSPECIFIED);
  e->set_request_id(Cap(r.request_id, 128));
  if (AnySet(r.trace_id, 16)) e->set_trace_id(r.trace_id, 16);
  if (AnySet(r.span_id, 8)) e->set_span_id(r.span_id, 8);
  if (AnySet(r.parent_span_id, 8)) e->set_parent_span_id(r.parent_span_id, 8);
  e->set_start_unix_ns(r.start_unix_ns);
  e->set_duration_us(Us(r.duration_ns));
  e->set_protocol(r.websocket ? "websocket" : r.grpc ? "grpc" : r.protocol == proxy::Protocol::kTcp ? "tcp"
                  : r.protocol == proxy::Protocol::kHttp2 ? "h2" : "http/1.1");
  e->set_method(Cap(r.method, 32));
  e->set_path(Cap(WithoutQuery(r.path)));
  e->set_authority(Cap(r.authority, 256));
  e->set_status(r.status);
  e->set_grpc_status(r.grpc ? r.grpc_status : -1);
  e->set_response_flags(r.flags.ToString());
  e->set_response_detail(Cap(r.transport_failure_detail.empty() ? r.detail : r.transport_failure_detail, 512));
  e->set_route(Cap(r.route, 256));
  e->set_cluster(Cap(r.cluster, 256));
  std::string me = own.service + "." + own.service_namespace;
  bool inbound = r.direction == proxy::Direction::kInbound;
  if (inbound) {
    e->set_source_identity(Cap(r.peer_identity, 512));
    e->set_source_service(Cap(ServiceOf(r.peer_identity), 256));
    e->set_destination_service(own.service.empty() ? "" : me);
    e->set_destination_identity(Cap(r.local_identity, 512));
    e->set_tls_version(r.tls_version);
  } else {
    e->set_source_service(own.service.empty() ? "" : me);
    e->set_source_identity(Cap(r.local_identity, 512));
    std::string destination = r.destination_service;
    if (!destination.empty() && !r.destination_namespace.empty()) destination += "." + r.destination_namespace;
    e->set_destination_service(Cap(destination, 256));
    e->set_destination_identity(Cap(r.upstream_peer_identity, 512));
    e->set_tls_version(r.upstream_tls_version);
  }
  e->set_policy(Cap(r.policy, 256));
  e->set_policy_revision(r.policy_revision);
  e->set_config_revision(r.config_revision);
  for (uint32_t i = 0; i < r.attempt_count && i < r.attempts.size() && i < 16; ++i) {
    const proxy::AttemptRecord& a = r.attempts[i];
    pb::Attempt* p = e->add_attempts();
    p->set_endpoint(a.endpoint), p->set_endpoint_workload(a.workload), p->set_endpoint_version(a.version);
    p->set_start_offset_us(Us(a.start_offset_ns)), p->set_duration_us(Us(a.duration_ns));
    p->set_status(a.status), p->set_outcome(a.outcome), p->set_detail(Cap(a.detail, 256));
    p->set_host_ejected(a.host_ejected), p->set_healthy_hosts(a.healthy_hosts), p->set_total_hosts(a.total_hosts);
    p->set_active_requests(a.active_requests), p->set_max_requests(a.max_requests);
    p->set_connection_reused(a.connection_reused), p->set_connect_us(Us(a.connect_ns));
    p->set_local_address(a.local_address);
    p->set_not_retried(a.not_retried), p->set_active_retries(a.active_retries), p->set_max_retries(a.max_retries);
    p->set_retry_budget_percent(a.retry_budget_percent);
    for (const proxy::EjectionRecord& j : a.ejections) {
      pb::Ejection* out = p->add_ejections();
      out->set_endpoint(j.endpoint), out->set_endpoint_workload(j.workload), out->set_endpoint_version(j.version);
      out->set_rule(j.rule), out->set_errors(j.errors), out->set_kinds(j.kinds);
      out->set_at_unix_ms(j.at_unix_ns / 1'000'000), out->set_until_unix_ms(j.until_unix_ns / 1'000'000);
    }
  }
  e->set_request_bytes(r.request_bytes), e->set_response_bytes(r.response_bytes);
  e->set_downstream_address(r.downstream_remote);
  e->set_original_destination(r.downstream_local);
  e->set_retries(r.retries);
  e->set_fault(Cap(r.fault, 64));
  e->set_tls_failure(r.transport_failure);
}

}  // namespace

struct EventStream::Pending {
  pb::EventBatch batch;
  size_t bytes = 0;
};

EventStream::EventStream(io::Loop* loop, EventOptions options)
    : loop_(loop), options_(std::move(options)), pending_(std::make_unique<Pending>()) {
  uint8_t random[16];
  if (getrandom(random, sizeof random, 0) != sizeof random) std::fill(random, random + 16, static_cast<uint8_t>(loop->wall_now()));
  static const char* digits = "0123456789abcdef";
  for (uint8_t b : random) epoch_ += digits[b >> 4], epoch_ += digits[b & 15];
  auto& s = base::Stats::Get();
  events_stat_ = s.Counter("weft.events.total"), dropped_stat_ = s.Counter("weft.events.dropped");
  batches_stat_ = s.Counter("weft.events.batches_acknowledged"), resent_stat_ = s.Counter("weft.events.batches_resent");
  unacked_stat_ = s.Gauge("weft.events.batches_unacknowledged");
}
EventStream::~EventStream() { Stop(); }

void EventStream::Stop() {
  tick_.Cancel();
  if (stream_) std::exchange(stream_, nullptr)->Cancel();
  channel_ = nullptr;
}

void EventStream::OnChannel(xds::GrpcChannel* channel, bool up) {
  channel_ = channel;
  if (up) Open();
}

void EventStream::Open() {
  if (stream_ || !channel_ || !channel_->up()) return;
  stream_ = channel_->Open("/weft.telemetry.v1.Telemetry/Stream", this);
  sequence_ = acknowledged_ = 0;
  for (Batch& b : sent_) {
    if (b.sequence) base::Cells::Local().Add(resent_stat_);
    b.sequence = 0;
  }
  if (stream_) SendWaiting();
  else loop_->Arm(&tick_, base::kSecond);
}

void EventStream::AddDropped(uint64_t n) {
  dropped_ += n;
  base::Cells::Local().Add(dropped_stat_, n);
}

void EventStream::Add(const proxy::Record& record) {
  // Numbers are given to what is kept only, so that a gap never means anything but loss on the way.
  if (queued_bytes_ + pending_->bytes >= kMaxQueuedBytes) {
    AddDropped(1);
    return;
  }
  pb::RequestEvent* e = pending_->batch.add_events();
  Fill(record, options_, ++number_, e);
  base::Cells::Local().Add(events_stat_);
  pending_->bytes += 300 + record.path.size() + 120 * record.attempt_count;
  if (pending_->batch.events_size() >= static_cast<int>(kMaxBatch) || pending_->bytes >= kMaxBatchBytes) {
    Seal();
    SendWaiting();
  } else if (!tick_.armed()) {
    loop_->Arm(&tick_, kMaxDelayNs);
  }
}

void EventStream::Seal() {
  if (pending_->batch.events_size() == 0) return;
  Batch b;
  b.count = static_cast<uint64_t>(pending_->batch.events_size());
  uint64_t revision = 0;
  for (const auto& e : pending_->batch.events()) revision = std::max(revision, e.config_revision());
  pending_->batch.set_config_revision(revision);
  pending_->batch.SerializeToString(&b.events);
  pending_->batch.Clear();
  pending_->bytes = 0;
  queued_bytes_ += b.events.size();
  sent_.push_back(std::move(b));
  base::Cells::Local().Set(unacked_stat_, sent_.size());
}

std::string EventStream::Head(uint64_t sequence) {
  pb::EventBatch head;
  head.set_sequence(sequence);
  head.set_workload_id(options_.workload_id), head.set_service(options_.service);
  head.set_namespace_(options_.service_namespace), head.set_version(options_.version);
  head.set_dropped_events_total(dropped_);
  head.set_epoch(epoch_);
  dropped_sent_ = dropped_;
  return head.SerializeAsString();
}

// Traffic may end with a drop: once the queue is empty, a batch without events says how many there were.
void EventStream::ReportDropped() {
  if (!stream_ || !sent_.empty() || dropped_ == dropped_sent_) return;
  const uint64_t before = dropped_sent_;
  if (stream_->Send(Head(sequence_ + 1))) {
    ++sequence_;
  } else {
    dropped_sent_ = before;
    if (!tick_.armed()) loop_->Arm(&tick_, kMaxDelayNs);
  }
}

void EventStream::SendWaiting() {
  if (!stream_) return;
  for (Batch& b : sent_) {
    if (b.sequence) continue;
    if (sequence_ - acknowledged_ >= kMaxInFlight) return;  // the next acknowledgement goes on
    // Fields may come in any order on the wire: the head is put behind the encoded events.
    if (!stream_->Send(b.events + Head(sequence_ + 1))) {
      loop_->Arm(&tick_, kMaxDelayNs);
      return;
    }
    b.sequence = ++sequence_;
  }
}

void EventStream::OnTick() {
  Seal();
  if (!stream_) Open();
  SendWaiting();
  ReportDropped();
}

bool EventStream::Flush() {
  Seal();
  SendWaiting();
  return sent_.empty();
}

void EventStream::OnMessage(std::string_view bytes) {
  pb::BatchAck ack;
  if (!ack.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return;
  while (!sent_.empty() && sent_.front().sequence != 0 && sent_.front().sequence <= ack.sequence()) {
    queued_bytes_ -= sent_.front().events.size();
    sent_.pop_front();
    base::Cells::Local().Add(batches_stat_);
  }
  acknowledged_ = std::max(acknowledged_, std::min(ack.sequence(), sequence_));
  base::Cells::Local().Set(unacked_stat_, sent_.size());
  SendWaiting();
  ReportDropped();
}

void EventStream::OnClosed(const xds::GrpcStatus& status) {
  stream_ = nullptr;
  if (!channel_) return;
  if (channel_->up()) WEFT_LOG(kTelemetry, kWarn, "event stream: ", status.ToString(), "; events are kept and sent again");
  loop_->Arm(&tick_, base::kSecond);
}

}  // namespace weft::telemetry
