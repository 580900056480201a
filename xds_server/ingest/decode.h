// From the wire to plain values: request events of sidecars, OTLP spans. Pure; every text is cut and made valid UTF-8,
// every list bounded. No exceptions; what cannot be taken is counted in the returned number.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "xds_server/telemetry/record.h"

namespace weft::telemetry::v1 {
class EventBatch;
}
namespace opentelemetry::proto::collector::trace::v1 {
class ExportTraceServiceRequest;
}

namespace weft::insight {

// Who sent a batch, as its certificate says; claims in the batch never override it.
struct Reporter {
  std::string identity;        // SPIFFE ID, "" on the plaintext development port
  std::string service, ns;     // from it
};
// False when `identity` is not of the form spiffe://<domain>/ns/<ns>/sa/<service>.
bool ReporterOf(const std::string& identity, Reporter* out);

struct Limits {
  size_t name = 256, text = 1'024, path = 2'048;
  size_t attempts = 32, ejections = 16;
  size_t span_attributes = 128, attribute_value = 8'192, spans_per_request = 50'000;
};

void DecodeEvents(const weft::telemetry::v1::EventBatch& batch, const Reporter& reporter, std::vector<Event>& out,
                  const Limits& limits = {});
// Returns how many spans were left out (no ids, too many).
size_t DecodeSpans(const opentelemetry::proto::collector::trace::v1::ExportTraceServiceRequest& request, std::vector<Span>& out,
                   const Limits& limits = {});
// The JSON encoding of the same request (ids in hex, as OTLP says). -1: not such a document.
int DecodeSpansJson(std::string_view text, std::vector<Span>& out, const Limits& limits = {});
// gzip → plain with at most `max` bytes out and a ratio of at most 100; false otherwise.
bool Gunzip(std::string_view in, size_t max, std::string* out);
std::string Hex(std::string_view bytes);

}  // namespace weft::insight
