// Envoy's attributes (request, response, connection, upstream, source, destination, metadata, filter_state, xds) of a finished
// request or connection: what CEL expressions of access logs look at.
//
//   RecordAttributes attributes(record);
//   cel::Arena arena;
//   if (expression.Evaluate(attributes, arena).IsTrue()) ...
//
// Headers are those the record kept (AccessLogs says which). What is known to Envoy and not kept here is missing, as what did
// not happen is: nodes, metadata of routes, clusters and hosts, localities. Refers to the record. Threads: one.
#pragma once

#include "sidecar/cel/value.h"
#include "sidecar/proxy/record.h"

namespace weft::telemetry {

// The gRPC status of the answer, or what gRPC makes of its HTTP status; -1 when none came.
int GrpcStatusOf(const proxy::Record& record);

// A message's headers by name; repeated ones joined.
class HeaderAttributes : public cel::Map {
 public:
  explicit HeaderAttributes(const http::HeaderMap& headers) : headers_(headers) {}
  std::optional<cel::Value> Find(const cel::Value& key, cel::Arena& arena) const override;
  size_t Size(cel::Arena& arena) const override;
  void Keys(cel::Arena& arena, cel::List* to) const override;

 private:
  const http::HeaderMap& headers_;
};

class RecordAttributes : public cel::Map {
 public:
  explicit RecordAttributes(const proxy::Record& record)
      : record_(record), request_headers_(record.request_headers), response_headers_(record.response_headers), response_trailers_(record.response_trailers) {}
  std::optional<cel::Value> Find(const cel::Value& key, cel::Arena& arena) const override;

 private:
  using Found = std::optional<cel::Value>;
  struct Part : cel::Map {
    using Look = Found (RecordAttributes::*)(std::string_view name, cel::Arena& arena) const;
    Part(const RecordAttributes* of, Look look) : of(of), look(look) {}
    Found Find(const cel::Value& key, cel::Arena& arena) const override {
      return key.kind == cel::Value::kString ? (of->*look)(key.text, arena) : std::nullopt;
    }
    const RecordAttributes* of;
    Look look;
  };
  Found Request(std::string_view name, cel::Arena& arena) const;
  Found Response(std::string_view name, cel::Arena& arena) const;
  Found Connection(std::string_view name, cel::Arena& arena) const;
  Found Upstream(std::string_view name, cel::Arena& arena) const;
  Found Source(std::string_view name, cel::Arena& arena) const;
  Found Destination(std::string_view name, cel::Arena& arena) const;
  Found Xds(std::string_view name, cel::Arena& arena) const;
  Found Nothing(std::string_view, cel::Arena&) const { return std::nullopt; }

  const proxy::Record& record_;
  HeaderAttributes request_headers_, response_headers_, response_trailers_;
  Part request_{this, &RecordAttributes::Request}, response_{this, &RecordAttributes::Response}, connection_{this, &RecordAttributes::Connection},
      upstream_{this, &RecordAttributes::Upstream}, source_{this, &RecordAttributes::Source}, destination_{this, &RecordAttributes::Destination},
      xds_{this, &RecordAttributes::Xds}, nothing_{this, &RecordAttributes::Nothing};
};

}  // namespace weft::telemetry
