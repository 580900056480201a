#include "xds_server/ingest/otlp_server.h"

#include <grpcpp/grpcpp.h>
#include <httplib.h>

#include <future>
#include <thread>

#include "opentelemetry/proto/collector/trace/v1/trace_service.pb.h"
#include "xds_server/ingest/decode.h"

namespace weft::insight {
namespace {

constexpr size_t kMaxIn = 4 << 20, kMaxOut = 16 << 20;

class Impl final : public OtlpServer {
 public:
  ~Impl() override {
    if (http_) http_->stop();
    if (http_thread_.joinable()) http_thread_.join();
    if (grpc_) grpc_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(2));
  }

  base::Status Begin(const std::string& grpc_address, const std::string& http_address, Pipeline* pipeline, IngestCounters* counters) {
    pipeline_ = pipeline, counters_ = counters;
    if (!grpc_address.empty()) {
      service_ = MakeOtlpService(pipeline, counters);
      grpc::ServerBuilder builder;
      grpc::ResourceQuota quota("otlp");
      quota.Resize(64 << 20);
      builder.SetResourceQuota(quota);
      builder.SetMaxReceiveMessageSize(static_cast<int>(kMaxIn));
      builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
      builder.AddListeningPort(grpc_address, grpc::InsecureServerCredentials(), &grpc_port_);
      builder.RegisterService(service_.get());
      grpc_ = builder.BuildAndStart();
      if (!grpc_ || grpc_port_ == 0) return base::Error("cannot listen for OTLP over gRPC").In(grpc_address);
    }
    if (!http_address.empty()) {
      size_t colon = http_address.rfind(':');
      if (colon == std::string::npos) return base::Error("expected address:port").In(http_address);
      std::string host = http_address.substr(0, colon);
      if (host.size() > 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
      int port = atoi(http_address.c_str() + colon + 1);
      http_ = std::make_unique<httplib::Server>();
      http_->new_task_queue = [] { return new httplib::ThreadPool(8); };
      http_->set_payload_max_length(kMaxIn);
      http_->set_read_timeout(10, 0);
      http_->set_write_timeout(10, 0);
      http_->set_keep_alive_timeout(10);
      http_->set_socket_options([](auto fd) {
        int on = 1;
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
      });
      http_->Post("/v1/traces", [this](const httplib::Request& in, httplib::Response& out) { Export(in, out); });
      http_port_ = port == 0 ? http_->bind_to_any_port(host) : (http_->bind_to_port(host, port) ? port : 0);
      if (http_port_ <= 0) return base::Error("cannot listen for OTLP over HTTP").In(http_address);
      http_thread_ = std::thread([this] {
        LowerPriority();
        http_->listen_after_bind();
      });
      while (!http_->is_running()) std::this_thread::yield();  // a stop before that would be lost
    }
    return base::Ok{};
  }

  int grpc_port() const override { return grpc_port_; }
  int http_port() const override { return http_port_; }

 private:
  void Export(const httplib::Request& in, httplib::Response& out) {
    ++counters_->otlp_requests;
    auto fail = [&](int status, const char* why) {
      ++counters_->otlp_refused;
      out.status = status;
      out.set_content(std::string("{\"message\":\"") + why + "\"}", "application/json");
    };
    std::string type = in.get_header_value("Content-Type");
    type = type.substr(0, type.find(';'));
    bool json = type == "application/json";
    if (!json && type != "application/x-protobuf") return fail(415, "application/x-protobuf or application/json");
    auto body = std::make_shared<std::string>(in.body);
    std::string encoding = in.get_header_value("Content-Encoding");
    if (encoding == "gzip") {
      // httplib may have undone the encoding already: the magic number tells.
      if (in.body.starts_with("\x1f\x8b") && !Gunzip(in.body, kMaxOut, body.get())) return fail(400, "broken or oversized gzip");
    } else if (!encoding.empty() && encoding != "identity") {
      return fail(415, "encoding gzip or none");
    }
    auto spans = std::make_shared<std::vector<Span>>();
    size_t left_out = 0;
    if (json) {
      int n = DecodeSpansJson(*body, *spans);
      if (n < 0) return fail(400, "not an OTLP trace document");
      left_out = static_cast<size_t>(n);
    } else {
      opentelemetry::proto::collector::trace::v1::ExportTraceServiceRequest request;
      if (!request.ParseFromString(*body)) return fail(400, "not an OTLP trace message");
      left_out = DecodeSpans(request, *spans);
    }
    counters_->otlp_left_out += left_out;
    auto durable = std::make_shared<std::promise<bool>>();
    auto future = durable->get_future();
    Item item;
    item.bytes = body->size() + 256;
    item.decode = [spans](std::vector<Event>&, std::vector<Span>& all) {
      all.insert(all.end(), std::make_move_iterator(spans->begin()), std::make_move_iterator(spans->end()));
    };
    item.done = [durable](bool ok) { durable->set_value(ok); };
    if (!pipeline_->Push(item)) {
      out.set_header("Retry-After", "5");
      return fail(429, "the telemetry queue is full");
    }
    if (future.wait_for(std::chrono::seconds(10)) != std::future_status::ready || !future.get()) {
      return fail(503, "the telemetry store cannot write");
    }
    if (json) {
      out.set_content(left_out ? "{\"partialSuccess\":{\"rejectedSpans\":\"" + std::to_string(left_out) + "\"}}" : std::string("{}"),
                      "application/json");
    } else {
      opentelemetry::proto::collector::trace::v1::ExportTraceServiceResponse response;
      if (left_out) response.mutable_partial_success()->set_rejected_spans(static_cast<int64_t>(left_out));
      out.set_content(response.SerializeAsString(), "application/x-protobuf");
    }
  }

  Pipeline* pipeline_ = nullptr;
  IngestCounters* counters_ = nullptr;
  std::unique_ptr<grpc::Service> service_;
  std::unique_ptr<grpc::Server> grpc_;
  std::unique_ptr<httplib::Server> http_;
  std::thread http_thread_;
  int grpc_port_ = 0, http_port_ = 0;
};

}  // namespace

base::Result<std::unique_ptr<OtlpServer>> OtlpServer::Start(const std::string& grpc_address, const std::string& http_address,
                                                            Pipeline* pipeline, IngestCounters* counters) {
  auto server = std::make_unique<Impl>();
  if (auto s = server->Begin(grpc_address, http_address, pipeline, counters); !s) return s.error();
  return std::unique_ptr<OtlpServer>(std::move(server));
}

}  // namespace weft::insight
