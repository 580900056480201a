// CPU of the server for each event, by step: what a batch costs from its bytes to the store and the live counts.
//
//   bazel run //xds_server/ingest:ingest_bench -- [events] [DuckDB threads] [checkpoint MB]
//
// Events are as a sidecar makes them of a shop's requests, 700 a batch and 4 batches a commit. Figures are process CPU
// (DuckDB's threads too) in microseconds an event; docs/performance.md keeps them.
#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <string>

#include "api/weft/telemetry/v1/telemetry.pb.h"
#include "xds_server/ingest/decode.h"
#include "xds_server/ingest/pipeline.h"

namespace {

namespace pb = weft::telemetry::v1;
using namespace weft::insight;

std::mt19937_64 rng(1);

std::string Bytes(size_t n) {
  std::string s;
  for (size_t i = 0; i < n; ++i) s += static_cast<char>(rng());
  return s;
}

std::string RequestId() {
  std::string s = Hex(Bytes(16));
  for (size_t at : {8u, 13u, 18u, 23u}) s.insert(at, 1, '-');
  return s;
}

std::string Batch(uint64_t& number, int events, int64_t now_ns) {
  static const char* const kCallees[] = {"catalog", "cart", "pricing", "checkout"};
  pb::EventBatch b;
  b.set_workload_id("frontend-7f9c2a"), b.set_service("frontend"), b.set_namespace_("default"), b.set_version("v1");
  b.set_epoch("0123456789abcdef0123456789abcdef"), b.set_config_revision(14);
  std::lognormal_distribution<> latency(8, 0.7);
  for (int i = 0; i < events; ++i) {
    auto* e = b.add_events();
    const bool in = i % 2;
    const std::string callee = kCallees[rng() % 4];
    const std::string me = "spiffe://weft.local/ns/default/sa/frontend", other = "spiffe://weft.local/ns/default/sa/" + callee;
    e->set_number(++number), e->set_direction(in ? pb::INBOUND : pb::OUTBOUND);
    e->set_request_id(RequestId()), e->set_trace_id(Bytes(16)), e->set_span_id(Bytes(8)), e->set_parent_span_id(Bytes(8));
    e->set_duration_us(static_cast<uint64_t>(latency(rng))), e->set_start_unix_ns(static_cast<uint64_t>(now_ns) - e->duration_us() * 1000);
    e->set_protocol(in ? "h2" : "http/1.1"), e->set_method("GET"), e->set_path("/items/" + std::to_string(rng() % 50)), e->set_authority(callee);
    e->set_status(rng() % 50 ? 200 : 503), e->set_grpc_status(-1), e->set_response_detail("via_upstream");
    e->set_route(in ? "default" : "r0"), e->set_cluster(in ? "inbound|8000" : "outbound|80||" + callee + ".default");
    e->set_source_identity(in ? other : me), e->set_source_service(in ? callee + ".default" : "frontend.default");
    e->set_destination_identity(in ? me : other), e->set_destination_service(in ? "frontend.default" : callee + ".default");
    e->set_tls_version("TLSv1.3"), e->set_config_revision(14), e->set_request_bytes(120), e->set_response_bytes(800 + rng() % 400);
    e->set_downstream_address("10.77.0.5:" + std::to_string(30'000 + rng() % 30'000)), e->set_original_destination("10.77.0.6:8000");
    auto* a = e->add_attempts();
    a->set_endpoint("10.77.0.9:8000"), a->set_endpoint_workload(callee + "-a1b2c3"), a->set_endpoint_version("v1");
    a->set_start_offset_us(20 + rng() % 20), a->set_duration_us(e->duration_us() - 40), a->set_status(e->status()), a->set_outcome("ok");
    a->set_healthy_hosts(2), a->set_total_hosts(2), a->set_active_requests(rng() % 30), a->set_max_requests(1'024), a->set_connection_reused(true);
  }
  return b.SerializeAsString();
}

double Cpu() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_nsec) / 1e3;
}

}  // namespace

int main(int argc, char** argv) {
  const size_t total = argc > 1 ? strtoull(argv[1], nullptr, 10) : 300'000;
  constexpr int kBatch = 700, kBatches = 4;
  std::string dir = (std::filesystem::temp_directory_path() / "ingest_benchXXXXXX").string();
  if (!mkdtemp(dir.data())) return 1;
  StoreOptions options;
  options.directory = dir;
  if (argc > 2) options.threads = atoi(argv[2]);
  if (argc > 3) options.checkpoint_mb = atoi(argv[3]);
  auto store = OpenDuckDbStore(options);
  if (!store) return fprintf(stderr, "%s\n", store.error().ToString().c_str()), 1;
  Live live;
  Reporter who;
  ReporterOf("spiffe://weft.local/ns/default/sa/frontend", &who);
  uint64_t number = 0, bytes = 0;
  double parse = 0, append = 0, count = 0;
  size_t done = 0;
  while (done < total) {
    std::vector<std::string> encoded;
    for (int i = 0; i < kBatches; ++i) encoded.push_back(Batch(number, kBatch, NowNs())), bytes += encoded.back().size();
    double t = Cpu();
    std::vector<Event> events;
    std::vector<Span> spans;
    for (const std::string& text : encoded) {
      pb::EventBatch b;
      if (!b.ParseFromString(text)) return 1;
      DecodeEvents(b, who, events);
    }
    double t2 = Cpu();
    if (auto s = (*store)->Append(events, spans); !s) return fprintf(stderr, "%s\n", s.error().ToString().c_str()), 1;
    double t3 = Cpu();
    live.Add(events, NowNs());
    double t4 = Cpu();
    done += events.size();
    parse += t2 - t, append += t3 - t2, count += t4 - t3;
  }
  double t = Cpu();
  (*store).reset();
  append += Cpu() - t;  // the last checkpoint
  const double n = static_cast<double>(done);
  printf("%zu events of %.0f bytes: decode %.2f, store %.2f, live counts %.2f; together %.2f us of CPU an event; %.0f bytes an event on disk\n", done,
         static_cast<double>(bytes) / n, parse / n, append / n, count / n, (parse + append + count) / n,
         [&] {
           uintmax_t size = 0;
           for (const auto& f : std::filesystem::directory_iterator(dir)) size += f.file_size();
           return static_cast<double>(size) / n;
         }());
  std::filesystem::remove_all(dir);
  return 0;
}
