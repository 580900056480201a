// A whole worker between a caller and servers that say anything, in any order, while time passes.
//
// Input: a byte of settings (1: HTTP/2 to the server, 2: fault filter, 4: rate limit, 8: retries), then acts: a byte whose low
// three bits say who does what, 0-2 the caller sends, 3-4 the newest server connection sends (the next byte is how many
// of the following, less one), 5 time passes (high bits: 100 ms each), 6 the caller closes (high bits odd: half), 7 the servers close.
#include <memory>

#include "sidecar/base/check.h"
#include "sidecar/io/buffer.h"
#include "sidecar/proxy/testing/stage.h"
#include "test/fuzz/fuzz.h"

namespace weft::fuzz {
namespace {

using proxy::testing::Mesh;
using proxy::testing::Peer;
using proxy::testing::Stage;

void Configure(Mesh& mesh, uint8_t settings) {
  mesh.AddCluster("app", {}).protocol = settings & 1 ? model::Cluster::kHttp2 : model::Cluster::kHttp1;
  mesh.hcm.upgrades = {"websocket"};
  mesh.hcm.stream_idle_timeout_ns = 5 * base::kSecond;
  model::HttpFilter f;
  if (settings & 2) {
    auto fault = std::make_shared<model::FaultConfig>();
    fault->has_delay = true, fault->delay_ns = 150 * base::kMs, fault->delay_percent = {100, 100};
    f.name = "fault", f.config = std::shared_ptr<const model::FaultConfig>(fault);
    mesh.hcm.filters.insert(mesh.hcm.filters.begin(), f);
  }
  if (settings & 4) {
    auto limit = std::make_shared<model::LocalRateLimitConfig>();
    limit->max_tokens = limit->tokens_per_fill = 3, limit->fill_interval_ns = base::kSecond;
    limit->enabled = limit->enforced = {100, 100}, limit->key = "fuzz";
    f.name = "limit", f.config = std::shared_ptr<const model::LocalRateLimitConfig>(limit);
    mesh.hcm.filters.insert(mesh.hcm.filters.begin(), f);
  }
  if (settings & 8) {
    auto retry = std::make_shared<model::RetryPolicy>();
    retry->on = model::kRetry5xx, retry->num_retries = 3;
    mesh.forward().retry = retry;
  }
}

void Exchange(std::string_view bytes) {
  if (bytes.empty()) return;
  const uint8_t settings = static_cast<uint8_t>(bytes[0]);
  bytes.remove_prefix(1);
  const size_t blocks = io::Block::live();
  {
    Mesh mesh;
    Configure(mesh, settings);
    Stage stage(&mesh, false, settings & 1);
    Peer& caller = stage.Open();
    for (int acts = 0; !bytes.empty() && acts < 64; ++acts) {
      const uint8_t act = static_cast<uint8_t>(bytes[0]);
      bytes.remove_prefix(1);
      switch (act & 7) {
        case 0:
        case 1:
        case 2:
        case 3:
        case 4: {
          if (bytes.empty()) break;
          size_t n = std::min<size_t>(size_t{1} + static_cast<uint8_t>(bytes[0]), bytes.size() - 1);
          std::string said(bytes.substr(1, n));
          bytes.remove_prefix(1 + n);
          Peer* p = (act & 7) < 3 ? &caller : stage.newest_server();
          if (p && p->open()) p->SendRaw(said);
          break;
        }
        case 5: stage.Wait((act >> 3) * 100 * base::kMs); break;
        case 6: act & 8 ? caller.HalfClose() : caller.Close(); break;
        case 7: stage.CloseServers(); break;
      }
      stage.Settle();
    }
    // A server must never see a request that it could not read: what came in broken goes nowhere.
    WEFT_CHECK(!stage.server_complains(), "an unreadable request was sent on");
    stage.CloseCallers();
    stage.Settle();
    stage.WaitLong(90 * base::kSecond);
    const cluster::Breakers& b = stage.cells().breakers[0];
    WEFT_CHECK(b.requests == 0 && b.pending == 0 && b.retries == 0 && b.connections == 0, "held: ", b.requests.load(), " ", b.pending.load(), " ",
               b.retries.load(), " ", b.connections.load());
    WEFT_CHECK(stage.worker().active_requests() == 0 && stage.worker().active_connections() == 0 && stage.core().active_faults == 0);
  }
  WEFT_CHECK(io::Block::live() == blocks, "blocks are held");
}

}  // namespace

std::vector<Target> ExchangeTargets() { return {{"exchange", Exchange}}; }

}  // namespace weft::fuzz
