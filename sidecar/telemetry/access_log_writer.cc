#include "sidecar/telemetry/access_log_writer.h"

#include <string>
#include <vector>

#include "sidecar/proxy/format.h"
#include "sidecar/telemetry/grpc_log_encode.h"
#include "sidecar/telemetry/log_filter.h"

namespace weft::telemetry {

struct AccessLogWriter::Compiled {
  struct Node {
    model::JsonNode::Kind kind;
    std::string key, raw;  // key: quoted, with its colon
    proxy::Format format;
    std::vector<Node> children;
  };
  struct Log {
    const model::AccessLog* config;
    std::unique_ptr<GrpcLogEncoder> server;  // or a file:
    proxy::Format text;
    std::vector<Node> json;
  };
  static std::vector<Node> Compile(const std::vector<model::JsonNode>& nodes) {
    std::vector<Node> out;
    for (const model::JsonNode& n : nodes) {
      Node node{n.kind, {}, n.format, {}, Compile(n.children)};
      proxy::AppendJsonString(n.key, &node.key);
      node.key += ':';
      if (n.kind == model::JsonNode::kFormat) {
        auto f = proxy::Format::Compile(n.format);
        if (!f) continue;
        node.format = std::move(*f);
      }
      out.push_back(std::move(node));
    }
    return out;
  }
  static void Append(const std::vector<Node>& nodes, bool omit_empty, const proxy::Record& record, std::string& out) {
    out += '{';
    const size_t begin = out.size();
    for (const Node& n : nodes) {
      if (omit_empty && n.kind == model::JsonNode::kFormat && n.format.Missing(record)) continue;
      if (out.size() != begin) out += ',';
      out += n.key;
      if (n.kind == model::JsonNode::kFormat) n.format.AppendJson(record, omit_empty, &out);
      else if (n.kind == model::JsonNode::kObject) Append(n.children, omit_empty, record, out);
      else out += n.raw;
    }
    out += '}';
  }
  std::vector<Log> logs;
};

AccessLogWriter::AccessLogWriter() : random_(0x9e3779b97f4a7c15 ^ reinterpret_cast<uintptr_t>(this)) {
  auto& stats = base::Stats::Get();
  dropped_ = stats.Counter("access_log_file.write_dropped");
  buffered_ = stats.Counter("access_log_file.write_buffered");
  entries_dropped_ = stats.Counter("access_logs.entries_dropped");
}

AccessLogWriter::~AccessLogWriter() = default;

const AccessLogWriter::Compiled& AccessLogWriter::CompiledFor(const std::shared_ptr<const model::AccessLogs>& logs) {
  if (logs.get() == last_) return *last_compiled_;
  auto it = compiled_.find(logs);
  if (it == compiled_.end()) {
    Forget();
    auto compiled = std::make_unique<Compiled>();
    for (const model::AccessLog& log : logs->logs) {
      Compiled::Log c{&log, nullptr, {}, {}};
      // The translation has checked the formats; what still fails is left out rather than logged wrongly.
      if (log.grpc) {
        c.server = std::make_unique<GrpcLogEncoder>(log.grpc);
      } else if (log.json) {
        c.json = Compiled::Compile(log.json_format);
      } else if (auto f = proxy::Format::Compile(log.text_format.empty() ? proxy::kDefaultFormat : log.text_format)) {
        c.text = std::move(*f);
      }
      compiled->logs.push_back(std::move(c));
    }
    it = compiled_.emplace(logs, std::move(compiled)).first;
  }
  last_ = logs.get(), last_compiled_ = it->second.get();
  return *last_compiled_;
}

void AccessLogWriter::Forget() {
  last_ = nullptr;
  std::erase_if(compiled_, [](const auto& c) { return c.first.use_count() == 1; });
}

void AccessLogWriter::Write(const proxy::Record& record, Portion* portion) {
  if (!record.access_logs) return;
  for (const Compiled::Log& log : CompiledFor(record.access_logs).logs) {
    const model::AccessLog& c = *log.config;
    if (c.filter) {
      random_ ^= random_ << 13, random_ ^= random_ >> 7, random_ ^= random_ << 17;
      if (!Passes(*c.filter, record, random_)) continue;
    }
    if (log.server) {
      Portion::Entries& to = portion->EntriesOf(c.grpc);
      if (to.bytes.size() > kMaxPending) {
        base::Cells::Local().Add(entries_dropped_);
        continue;
      }
      const size_t before = to.bytes.size();
      log.server->Append(record, &to.bytes);
      to.sizes.push_back(static_cast<uint32_t>(to.bytes.size() - before));
      continue;
    }
    std::string& out = portion->LinesOf(c.path).text;
    if (out.size() > kMaxPending) {
      base::Cells::Local().Add(dropped_);
      continue;
    }
    if (c.json) {
      Compiled::Append(log.json, c.omit_empty_values, record, out);
      out += '\n';
    } else {
      log.text.Append(record, c.omit_empty_values, &out);
    }
    base::Cells::Local().Add(buffered_);
  }
}

}  // namespace weft::telemetry
