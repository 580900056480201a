// gRPC over HTTP/2 without a gRPC library: message framing, deadlines, status.
//
//   GrpcReader reader(4 << 20);
//   io::Buffer message;
//   const size_t before = inbound.body.size();
//   GrpcReader::Result r;
//   while ((r = reader.Next(inbound.body, message)) == GrpcReader::Result::kMessage) Use(message);
//   codec.Consumed(id, before - inbound.body.size());   // a message may be larger than the window
//
// Threads: one. Units: bytes, nanoseconds.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "sidecar/codec/codec.h"
#include "sidecar/io/buffer.h"

namespace weft::codec {

// The numbers of grpc-status.
enum class GrpcStatus : uint8_t {
  kOk = 0, kCancelled = 1, kUnknown = 2, kInvalidArgument = 3, kDeadlineExceeded = 4, kNotFound = 5, kAlreadyExists = 6,
  kPermissionDenied = 7, kResourceExhausted = 8, kFailedPrecondition = 9, kAborted = 10, kOutOfRange = 11,
  kUnimplemented = 12, kInternal = 13, kUnavailable = 14, kDataLoss = 15, kUnauthenticated = 16,
};
std::string_view GrpcStatusName(GrpcStatus s);  // "UNAVAILABLE"
// The value of grpc-status; kUnknown when it is not a number.
GrpcStatus ParseGrpcStatus(std::string_view value);

// "application/grpc", perhaps with "+proto" or parameters; not grpc-web.
bool IsGrpcContentType(std::string_view content_type);

// Cuts a stream of body bytes into messages.
class GrpcReader {
 public:
  enum class Result : uint8_t {
    kMore,      // no whole message yet
    kMessage,   // message holds the next one (its previous content is replaced)
    kTooLarge,  // above the limit: nothing of it was kept, the stream is of no use any more
    kInvalid,   // the flag byte is neither 0 nor 1
  };
  explicit GrpcReader(size_t max_message) : max_message_(max_message) {}
  // Takes what it can from in, also parts of a message.
  Result Next(io::Buffer& in, io::Buffer& message);
  bool compressed() const { return compressed_; }  // of the last message
  bool mid_message() const { return have_head_ || head_bytes_ > 0; }

 private:
  const size_t max_message_;
  char head_[5] = {};
  uint8_t head_bytes_ = 0;
  bool have_head_ = false, compressed_ = false;
  size_t left_ = 0;
  io::Buffer partial_;
};

// Counts the messages of a stream that passes by: their prefixes are looked at, nothing is kept.
class GrpcMessageCount {
 public:
  void See(const io::Buffer& body, size_t n);  // its first n bytes go by
  uint64_t count() const { return count_; }    // those whose prefix was whole

 private:
  uint64_t count_ = 0;
  size_t left_ = 0;
  char head_[5] = {};
  uint8_t head_bytes_ = 0;
};

// Appends one uncompressed message with its prefix. The second form moves the payload.
void AppendGrpcMessage(std::string_view payload, io::Buffer& out);
void AppendGrpcMessage(io::Buffer& payload, io::Buffer& out);

// grpc-timeout: up to 8 digits and a unit (H M S m u n). nullopt when it is not one. Saturates at 2^63.
std::optional<uint64_t> ParseGrpcTimeoutNs(std::string_view value);
// The finest unit that fits 8 digits, rounded up.
std::string FormatGrpcTimeout(uint64_t ns);

// What a gRPC client must make of an answer without grpc-status, and of a reset.
GrpcStatus GrpcStatusFromHttp(int http_status);
GrpcStatus GrpcStatusFromReset(ResetCode code);
// The HTTP status a metric or log shows for a gRPC one (200, 499, 503 ...).
int HttpStatusFromGrpc(GrpcStatus s);

// grpc-message: percent-encoding of everything but printable ASCII, and of '%'. Decoding keeps broken escapes.
std::string EncodeGrpcMessage(std::string_view text);
std::string DecodeGrpcMessage(std::string_view value);

}  // namespace weft::codec
