#include "sidecar/codec/grpc.h"

#include <algorithm>
#include <iterator>

namespace weft::codec {
namespace {

constexpr std::string_view kNames[] = {
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED"};

struct Unit {
  char name;
  uint64_t ns;
};
constexpr Unit kUnits[] = {{'n', 1},           {'u', 1000},           {'m', 1000'000},
                           {'S', 1000'000'000}, {'M', 60'000'000'000}, {'H', 3600'000'000'000}};

int Hex(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

void Prefix(size_t n, io::Buffer& out) {
  const char head[5] = {0, static_cast<char>(n >> 24), static_cast<char>(n >> 16), static_cast<char>(n >> 8), static_cast<char>(n)};
  out.Append(std::string_view(head, sizeof(head)));
}

}  // namespace

std::string_view GrpcStatusName(GrpcStatus s) {
  const auto i = static_cast<size_t>(s);
  return i < std::size(kNames) ? kNames[i] : kNames[2];
}

GrpcStatus ParseGrpcStatus(std::string_view v) {
  if (v.empty() || v.size() > 2) return GrpcStatus::kUnknown;
  int n = 0;
  for (const char c : v) {
    if (c < '0' || c > '9') return GrpcStatus::kUnknown;
    n = n * 10 + (c - '0');
  }
  return n <= 16 ? static_cast<GrpcStatus>(n) : GrpcStatus::kUnknown;
}

bool IsGrpcContentType(std::string_view t) {
  constexpr std::string_view kBase = "application/grpc";
  if (!t.starts_with(kBase)) return false;
  return t.size() == kBase.size() || t[kBase.size()] == '+' || t[kBase.size()] == ';' || t[kBase.size()] == ' ';
}

GrpcReader::Result GrpcReader::Next(io::Buffer& in, io::Buffer& message) {
  if (!have_head_) {
    while (head_bytes_ < sizeof(head_) && !in.empty()) {
      const size_t n = std::min(sizeof(head_) - head_bytes_, in.size());
      in.CopyOut(0, head_ + head_bytes_, n);
      in.Consume(n);
      head_bytes_ = static_cast<uint8_t>(head_bytes_ + n);
    }
    if (head_bytes_ < sizeof(head_)) return Result::kMore;
    if (static_cast<uint8_t>(head_[0]) > 1) return Result::kInvalid;
    compressed_ = head_[0] == 1;
    left_ = 0;
    for (int i = 1; i < 5; ++i) left_ = left_ << 8 | static_cast<uint8_t>(head_[i]);
    if (left_ > max_message_) return Result::kTooLarge;
    have_head_ = true;
  }
  const size_t n = std::min(left_, in.size());
  partial_.Move(in, n);
  left_ -= n;
  if (left_ > 0) return Result::kMore;
  message.Clear();
  message.Move(partial_);
  have_head_ = false, head_bytes_ = 0;
  return Result::kMessage;
}

void GrpcMessageCount::See(const io::Buffer& body, size_t n) {
  for (size_t at = 0; at < n;) {
    if (left_ > 0) {
      const size_t part = std::min(left_, n - at);
      at += part, left_ -= part;
      continue;
    }
    const size_t part = std::min(sizeof(head_) - head_bytes_, n - at);
    body.CopyOut(at, head_ + head_bytes_, part);
    at += part, head_bytes_ = static_cast<uint8_t>(head_bytes_ + part);
    if (head_bytes_ < sizeof(head_)) return;
    for (int i = 1; i < 5; ++i) left_ = left_ << 8 | static_cast<uint8_t>(head_[i]);
    head_bytes_ = 0, ++count_;
  }
}

void AppendGrpcMessage(std::string_view payload, io::Buffer& out) {
  Prefix(payload.size(), out);
  out.Append(payload);
}

void AppendGrpcMessage(io::Buffer& payload, io::Buffer& out) {
  Prefix(payload.size(), out);
  out.Move(payload);
}

std::optional<uint64_t> ParseGrpcTimeoutNs(std::string_view v) {
  if (v.size() < 2 || v.size() > 9) return std::nullopt;
  uint64_t n = 0;
  for (const char c : v.substr(0, v.size() - 1)) {
    if (c < '0' || c > '9') return std::nullopt;
    n = n * 10 + static_cast<uint64_t>(c - '0');
  }
  for (const Unit& u : kUnits) {
    if (u.name == v.back()) return n > INT64_MAX / u.ns ? static_cast<uint64_t>(INT64_MAX) : n * u.ns;
  }
  return std::nullopt;
}

std::string FormatGrpcTimeout(uint64_t ns) {
  for (const Unit& u : kUnits) {
    const uint64_t n = ns / u.ns + (ns % u.ns != 0);
    if (n <= 99'999'999) return std::to_string(n) + u.name;
  }
  return "99999999H";
}

GrpcStatus GrpcStatusFromHttp(int status) {
  switch (status) {
    case 400: return GrpcStatus::kInternal;
    case 401: return GrpcStatus::kUnauthenticated;
    case 403: return GrpcStatus::kPermissionDenied;
    case 404: return GrpcStatus::kUnimplemented;
    case 429:
    case 502:
    case 503:
    case 504: return GrpcStatus::kUnavailable;
    default: return GrpcStatus::kUnknown;
  }
}

GrpcStatus GrpcStatusFromReset(ResetCode code) {
  switch (code) {
    case ResetCode::kRefused:
    case ResetCode::kConnectionLost: return GrpcStatus::kUnavailable;
    case ResetCode::kCancel: return GrpcStatus::kCancelled;
    case ResetCode::kEnhanceYourCalm: return GrpcStatus::kResourceExhausted;
    default: return GrpcStatus::kInternal;
  }
}

int HttpStatusFromGrpc(GrpcStatus s) {
  switch (s) {
    case GrpcStatus::kOk: return 200;
    case GrpcStatus::kCancelled: return 499;
    case GrpcStatus::kInvalidArgument:
    case GrpcStatus::kFailedPrecondition:
    case GrpcStatus::kOutOfRange: return 400;
    case GrpcStatus::kDeadlineExceeded: return 504;
    case GrpcStatus::kNotFound: return 404;
    case GrpcStatus::kAlreadyExists:
    case GrpcStatus::kAborted: return 409;
    case GrpcStatus::kPermissionDenied: return 403;
    case GrpcStatus::kResourceExhausted: return 429;
    case GrpcStatus::kUnimplemented: return 501;
    case GrpcStatus::kUnavailable: return 503;
    case GrpcStatus::kUnauthenticated: return 401;
    default: return 500;
  }
}

std::string EncodeGrpcMessage(std::string_view text) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  std::string out;
  out.reserve(text.size());
  for (const char ch : text) {
    const auto c = static_cast<uint8_t>(ch);
    if (c >= 0x20 && c <= 0x7e && c != '%') {
      out.push_back(ch);
    } else {
      out.push_back('%'), out.push_back(kDigits[c >> 4]), out.push_back(kDigits[c & 15]);
    }
  }
  return out;
}

std::string DecodeGrpcMessage(std::string_view v) {
  std::string out;
  out.reserve(v.size());
  for (size_t i = 0; i < v.size(); ++i) {
    if (v[i] == '%' && i + 2 < v.size() && Hex(v[i + 1]) >= 0 && Hex(v[i + 2]) >= 0) {
      out.push_back(static_cast<char>(Hex(v[i + 1]) * 16 + Hex(v[i + 2])));
      i += 2;
    } else {
      out.push_back(v[i]);
    }
  }
  return out;
}

}  // namespace weft::codec
