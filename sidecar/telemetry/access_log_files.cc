#include "sidecar/telemetry/access_log_files.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace weft::telemetry {

struct AccessLogFiles::File {
  std::string path, pending;
  int fd = -1;
  bool standard = false;  // stdout or stderr: not ours to close
  ~File() {
    if (fd >= 0 && !standard) close(fd);
  }
};

AccessLogFiles::AccessLogFiles() {
  auto& stats = base::Stats::Get();
  written_ = stats.Counter("access_log_file.write_completed");
  failed_ = stats.Counter("access_log_file.write_failed");
  dropped_ = stats.Counter("access_log_file.write_dropped");
}

AccessLogFiles::~AccessLogFiles() { Flush(); }

AccessLogFiles::File* AccessLogFiles::FileFor(const std::string& path) {
  auto it = files_.find(path);
  if (it != files_.end()) return it->second.get();
  if (files_.size() >= kMaxFiles) return nullptr;
  auto file = std::make_unique<File>();
  file->path = path;
  if (path == "/dev/stdout") file->fd = 1, file->standard = true;
  if (path == "/dev/stderr") file->fd = 2, file->standard = true;
  return files_.emplace(path, std::move(file)).first->second.get();
}

void AccessLogFiles::Append(const std::string& path, std::string* text) {
  if (text->empty()) return;
  File* file = FileFor(path);
  if (!file || file->pending.size() > kMaxPending) {
    base::Cells::Local().Add(dropped_, static_cast<uint64_t>(std::count(text->begin(), text->end(), '\n')));
    return;
  }
  if (file->pending.empty()) file->pending.swap(*text);
  else file->pending += *text;
  if (file->pending.size() >= kFlushAt) FlushFile(*file);
}

void AccessLogFiles::FlushFile(File& file) {
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

void AccessLogFiles::Flush() {
  for (auto& [path, file] : files_) FlushFile(*file);
}

void AccessLogFiles::Reopen() {
  Flush();
  for (auto& [path, file] : files_) {
    if (!file->standard && file->fd >= 0) close(file->fd), file->fd = -1;
  }
}

}  // namespace weft::telemetry
