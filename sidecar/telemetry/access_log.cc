#include "sidecar/telemetry/access_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "sidecar/proxy/format.h"
#include "sidecar/telemetry/log_filter.h"

namespace weft::telemetry {

struct AccessLogger::File {
  std::string path, pending;
  int fd = -1;
  bool standard = false;  // stdout or stderr: not ours to close
  ~File() {
    if (fd >= 0 && !standard) close(fd);
  }
};

struct AccessLogger::Compiled {
  struct Node {
    model::JsonNode::Kind kind;
    std::string key, raw;  // key: quoted, with its colon
    proxy::Format format;
    std::vector<Node> children;
  };
  struct Log {
    const model::AccessLog* config;
    File* file;                       // or
    std::unique_ptr<GrpcLogSink> server;
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

AccessLogger::AccessLogger(GrpcLogs* servers) : servers_(servers), random_(0x9e3779b97f4a7c15) {
  auto& stats = base::Stats::Get();
  written_ = stats.Counter("access_log_file.write_completed");
  failed_ = stats.Counter("access_log_file.write_failed");
  dropped_ = stats.Counter("access_log_file.write_dropped");
  buffered_ = stats.Counter("access_log_file.write_buffered");
}

AccessLogger::~AccessLogger() { Flush(); }

AccessLogger::File* AccessLogger::FileFor(const std::string& path) {
  auto it = files_.find(path);
  if (it != files_.end()) return it->second.get();
  if (files_.size() >= kMaxFiles) return nullptr;
  auto file = std::make_unique<File>();
  file->path = path;
  if (path == "/dev/stdout") file->fd = 1, file->standard = true;
  if (path == "/dev/stderr") file->fd = 2, file->standard = true;
  return files_.emplace(path, std::move(file)).first->second.get();
}

const AccessLogger::Compiled& AccessLogger::CompiledFor(const std::shared_ptr<const model::AccessLogs>& logs) {
  auto it = compiled_.find(logs);
  if (it != compiled_.end()) return *it->second;
  Forget();
  auto compiled = std::make_unique<Compiled>();
  for (const model::AccessLog& log : logs->logs) {
    Compiled::Log c{&log, log.grpc ? nullptr : FileFor(log.path), nullptr, {}, {}};
    if (log.grpc) {
      auto sender = servers_ ? servers_->For(log.grpc) : nullptr;
      if (sender) c.server = std::make_unique<GrpcLogSink>(std::move(sender), log.grpc);
      compiled->logs.push_back(std::move(c));
      continue;
    }
    // The translation has checked the formats; what still fails is left out rather than logged wrongly.
    if (log.json) {
      c.json = Compiled::Compile(log.json_format);
    } else {
      auto f = proxy::Format::Compile(log.text_format.empty() ? proxy::kDefaultFormat : log.text_format);
      if (f) c.text = std::move(*f);
    }
    compiled->logs.push_back(std::move(c));
  }
  return *compiled_.emplace(logs, std::move(compiled)).first->second;
}

// Configurations that nobody else holds any more will not be seen again.
void AccessLogger::Forget() {
  std::erase_if(compiled_, [](const auto& c) { return c.first.use_count() == 1; });
}

void AccessLogger::Log(const proxy::Record& record) {
  if (!record.access_logs) return;
  for (const Compiled::Log& log : CompiledFor(record.access_logs).logs) {
    const model::AccessLog& c = *log.config;
    if (!log.file && !log.server) {
      base::Cells::Local().Add(dropped_);
      continue;
    }
    if (c.filter) {
      random_ ^= random_ << 13, random_ ^= random_ >> 7, random_ ^= random_ << 17;
      if (!Passes(*c.filter, record, random_)) continue;
    }
    if (log.server) {
      log.server->Log(record);
      continue;
    }
    std::string& out = log.file->pending;
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
    if (out.size() >= kFlushAt) FlushFile(*log.file);
  }
}

void AccessLogger::FlushFile(File& file) {
  if (file.pending.empty()) return;
  if (file.fd < 0) {
    file.fd = open(file.path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0644);
    if (file.fd < 0) {
      base::Cells::Local().Add(failed_);
      return;
    }
  }
  size_t done = 0;
  while (done < file.pending.size()) {
    ssize_t n = write(file.fd, file.pending.data() + done, file.pending.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      if (errno != EAGAIN) {
        base::Cells::Local().Add(failed_);
        // A file that broke is opened again next time; what it could not take is bounded by kMaxPending.
        if (!file.standard) close(file.fd), file.fd = -1;
      }
      break;
    }
    done += static_cast<size_t>(n);
  }
  file.pending.erase(0, done);
  if (done) base::Cells::Local().Add(written_);
}

void AccessLogger::Flush() {
  Forget();
  for (auto& [path, file] : files_) FlushFile(*file);
}

void AccessLogger::Reopen() {
  Flush();
  for (auto& [path, file] : files_) {
    if (!file->standard && file->fd >= 0) close(file->fd), file->fd = -1;
  }
}

}  // namespace weft::telemetry
