#include "xds_server/ingest/service.h"

#include <grpcpp/grpcpp.h>

#include <deque>

#include "api/weft/telemetry/v1/telemetry.grpc.pb.h"
#include "opentelemetry/proto/collector/trace/v1/trace_service.grpc.pb.h"
#include "xds_server/ingest/decode.h"
#include "xds_server/serve/peer.h"

namespace weft::insight {
namespace {

using weft::telemetry::v1::BatchAck;
using weft::telemetry::v1::EventBatch;
namespace collector = opentelemetry::proto::collector::trace::v1;

constexpr size_t kMaxUnacknowledged = 16;  // batches of one stream in the queue

// One sidecar's stream. The pipeline's callbacks may come after the stream has ended, so they hold `State`, not this.
class EventStream final : public grpc::ServerBidiReactor<EventBatch, BatchAck> {
 public:
  EventStream(grpc::CallbackServerContext* context, Pipeline* pipeline, DropBook* drops, IngestCounters* counters)
      : pipeline_(pipeline), drops_(drops), counters_(counters), state_(std::make_shared<State>()) {
    state_->stream = this;
    ++counters_->streams;
    server::Peer peer = server::PeerOf(*context);
    std::lock_guard lock(state_->mu);
    if (!peer.plaintext && !ReporterOf(peer.spiffe_id, &reporter_)) {
      ++counters_->unauthenticated;
      End(grpc::Status(grpc::StatusCode::UNAUTHENTICATED, "telemetry needs a workload's client certificate"));
      return;
    }
    StartRead(&batch_);
  }

  void OnReadDone(bool ok) override {
    std::lock_guard lock(state_->mu);
    if (!ok) {
      // The sidecar has said all; what is in the queue is still acknowledged. A broken connection comes as OnCancel.
      closing_ = true;
      WriteNext();
      return;
    }
    ++counters_->batches;
    auto batch = std::make_shared<EventBatch>(std::move(batch_));
    batch_.Clear();
    if (!reporter_.identity.empty() &&
        ((!batch->service().empty() && batch->service() != reporter_.service) ||
         (!batch->namespace_().empty() && batch->namespace_() != reporter_.ns))) {
      ++counters_->claims_overridden;
    }
    auto item = std::make_shared<Item>();
    item->bytes = batch->ByteSizeLong() + 256;
    // The callbacks outlive the stream: nothing of it may be captured.
    item->decode = [batch, reporter = reporter_, drops = drops_](std::vector<Event>& events, std::vector<Span>&) {
      DecodeEvents(*batch, reporter, events);
      if (batch->dropped_events_total()) {
        std::string who = reporter.service.empty() ? batch->workload_id() : NodeName(reporter.service, reporter.ns) + "/" + batch->workload_id();
        drops->Set(CleanText(who, 512), CleanText(batch->epoch(), 256), batch->dropped_events_total());
      }
    };
    item->done = [state = state_, sequence = batch->sequence()](bool durable) {
      std::lock_guard lock(state->mu);
      if (state->stream) state->stream->Committed(sequence, durable);
    };
    ++unacknowledged_;
    if (pipeline_->Push(*item)) {
      ReadMore();
    } else {
      ++counters_->stalls;
      PushLater(pipeline_, state_, item);
    }
  }

  void OnWriteDone(bool ok) override {
    std::lock_guard lock(state_->mu);
    writing_ = false;
    ok ? WriteNext() : End(grpc::Status::OK);
  }

  void OnCancel() override {
    std::lock_guard lock(state_->mu);
    End(grpc::Status::CANCELLED);
  }

  void OnDone() override {
    --counters_->streams;
    {
      std::lock_guard lock(state_->mu);
      state_->stream = nullptr;
    }
    delete this;
  }

 private:
  struct State {
    std::mutex mu;
    EventStream* stream = nullptr;
  };

  static void PushLater(Pipeline* pipeline, const std::shared_ptr<State>& state, const std::shared_ptr<Item>& item) {
    pipeline->WhenRoom([pipeline, state, item] {
      {
        std::lock_guard lock(state->mu);
        if (!state->stream || state->stream->ended_) return;
      }
      if (!pipeline->Push(*item)) {
        PushLater(pipeline, state, item);
        return;
      }
      std::lock_guard lock(state->mu);
      if (state->stream) state->stream->ReadMore();
    });
  }

  void ReadMore() {
    if (ended_) return;
    if (unacknowledged_ < kMaxUnacknowledged) {
      StartRead(&batch_);
    } else {
      paused_ = true;
    }
  }

  void Committed(uint64_t sequence, bool durable) {
    if (ended_) return;
    if (!durable) {
      // The sidecar keeps what was not acknowledged and sends it again on its next stream.
      End(grpc::Status(grpc::StatusCode::UNAVAILABLE, "the telemetry store cannot write"));
      return;
    }
    --unacknowledged_;
    acks_.push_back(sequence);
    WriteNext();
    if (paused_) {
      paused_ = false;
      StartRead(&batch_);
    }
  }

  void WriteNext() {
    if (ended_ || writing_) return;
    if (acks_.empty()) {
      if (closing_ && unacknowledged_ == 0) End(grpc::Status::OK);
      return;
    }
    ack_.set_sequence(acks_.front());
    acks_.pop_front();
    writing_ = true;
    StartWrite(&ack_);
  }

  void End(const grpc::Status& status) {
    if (ended_) return;
    ended_ = true;
    Finish(status);
  }

  Pipeline* const pipeline_;
  DropBook* const drops_;
  IngestCounters* const counters_;
  const std::shared_ptr<State> state_;  // its mutex guards everything below
  Reporter reporter_;
  EventBatch batch_;
  BatchAck ack_;
  std::deque<uint64_t> acks_;
  size_t unacknowledged_ = 0;
  bool writing_ = false, paused_ = false, closing_ = false, ended_ = false;
};

class TelemetryService final : public weft::telemetry::v1::Telemetry::CallbackService {
 public:
  TelemetryService(Pipeline* p, DropBook* d, IngestCounters* c) : pipeline_(p), drops_(d), counters_(c) {}
  grpc::ServerBidiReactor<EventBatch, BatchAck>* Stream(grpc::CallbackServerContext* context) override {
    return new EventStream(context, pipeline_, drops_, counters_);
  }

 private:
  Pipeline* const pipeline_;
  DropBook* const drops_;
  IngestCounters* const counters_;
};

class OtlpService final : public collector::TraceService::CallbackService {
 public:
  OtlpService(Pipeline* p, IngestCounters* c) : pipeline_(p), counters_(c) {}
  grpc::ServerUnaryReactor* Export(grpc::CallbackServerContext* context, const collector::ExportTraceServiceRequest* request,
                                   collector::ExportTraceServiceResponse* response) override {
    auto* reactor = context->DefaultReactor();
    ++counters_->otlp_requests;
    Item item;
    item.bytes = request->ByteSizeLong() + 256;
    auto left_out = std::make_shared<size_t>(0);
    // request, response and reactor live until Finish, which only `done` calls.
    item.decode = [request, left_out](std::vector<Event>&, std::vector<Span>& spans) { *left_out = DecodeSpans(*request, spans); };
    item.done = [reactor, response, left_out, counters = counters_](bool durable) {
      if (*left_out) {
        counters->otlp_left_out += *left_out;
        response->mutable_partial_success()->set_rejected_spans(static_cast<int64_t>(*left_out));
        response->mutable_partial_success()->set_error_message("spans without ids, over 1 MiB, or beyond 50000");
      }
      reactor->Finish(durable ? grpc::Status::OK : grpc::Status(grpc::StatusCode::UNAVAILABLE, "the telemetry store cannot write"));
    };
    if (!pipeline_->Push(item)) {
      ++counters_->otlp_refused;
      reactor->Finish(grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "the telemetry queue is full"));
    }
    return reactor;
  }

 private:
  Pipeline* const pipeline_;
  IngestCounters* const counters_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeTelemetryService(Pipeline* pipeline, DropBook* drops, IngestCounters* counters) {
  return std::make_unique<TelemetryService>(pipeline, drops, counters);
}

std::unique_ptr<grpc::Service> MakeOtlpService(Pipeline* pipeline, IngestCounters* counters) {
  return std::make_unique<OtlpService>(pipeline, counters);
}

}  // namespace weft::insight
