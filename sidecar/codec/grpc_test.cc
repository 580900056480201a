#include "sidecar/codec/grpc.h"

#include <gtest/gtest.h>

namespace weft::codec {
namespace {

TEST(Grpc, MessagesInAnyPieces) {
  io::Buffer wire;
  const std::string sizes[] = {"", "a", std::string(70000, 'x'), "end"};
  for (const auto& s : sizes) AppendGrpcMessage(s, wire);
  const std::string bytes = wire.ToString();
  for (const size_t step : {size_t{1}, size_t{4}, size_t{1000}, bytes.size()}) {
    GrpcReader reader(100000);
    io::Buffer in, message;
    size_t got = 0;
    for (size_t i = 0; i < bytes.size(); i += step) {
      in.Append(std::string_view(bytes).substr(i, step));
      while (reader.Next(in, message) == GrpcReader::Result::kMessage) {
        ASSERT_LT(got, std::size(sizes));
        EXPECT_TRUE(message.ToString() == sizes[got++]);
      }
      EXPECT_TRUE(in.empty());  // credit can always be returned
    }
    EXPECT_EQ(got, std::size(sizes));
    EXPECT_FALSE(reader.mid_message());
  }
}

TEST(Grpc, MessagesThatPassByAreCounted) {
  io::Buffer whole;
  for (size_t n : {0, 1, 5, 70'000, 3}) AppendGrpcMessage(std::string(n, '\x01'), whole);
  const std::string bytes = whole.ToString();
  for (size_t piece : {1, 2, 4, 5, 7, 1'000, 100'000}) {
    GrpcMessageCount count;
    for (size_t at = 0; at < bytes.size(); at += piece) {
      io::Buffer part;
      const std::string_view next = std::string_view(bytes).substr(at, piece);
      part.Append(next);
      part.Append("\0\0\0\0\0");  // what has not gone by yet
      count.See(part, next.size());
    }
    EXPECT_EQ(count.count(), 5u) << piece;
  }
  GrpcMessageCount cut;
  cut.See(whole, 4);
  EXPECT_EQ(cut.count(), 0u);
}

TEST(Grpc, Limits) {
  io::Buffer in, message;
  in.Append(std::string_view("\0\0\0\x10\1", 5));
  EXPECT_EQ(GrpcReader(4096).Next(in, message), GrpcReader::Result::kTooLarge);
  in.Clear();
  in.Append(std::string_view("\2\0\0\0\0", 5));
  EXPECT_EQ(GrpcReader(4096).Next(in, message), GrpcReader::Result::kInvalid);
  in.Clear();
  in.Append(std::string_view("\1\0\0\0\1z", 6));
  GrpcReader r(4096);
  EXPECT_EQ(r.Next(in, message), GrpcReader::Result::kMessage);
  EXPECT_TRUE(r.compressed());
}

TEST(Grpc, Timeout) {
  EXPECT_EQ(ParseGrpcTimeoutNs("100m"), 100'000'000u);
  EXPECT_EQ(ParseGrpcTimeoutNs("1H"), 3600'000'000'000u);
  EXPECT_EQ(ParseGrpcTimeoutNs("99999999H"), static_cast<uint64_t>(INT64_MAX));
  for (const char* bad : {"", "m", "1", "1x", "-1m", "123456789m", "1 m", "1.5S"}) EXPECT_FALSE(ParseGrpcTimeoutNs(bad)) << bad;
  EXPECT_EQ(FormatGrpcTimeout(0), "0n");
  EXPECT_EQ(FormatGrpcTimeout(1'500'000'000), "1500000u");
  for (const uint64_t ns : {1ull, 99'999'999ull, 100'000'000ull, 3'600'000'000'001ull, 1ull << 60}) {
    const auto back = ParseGrpcTimeoutNs(FormatGrpcTimeout(ns));
    ASSERT_TRUE(back);
    EXPECT_GE(*back, ns);
    EXPECT_LE(*back, ns + ns / 1000 + 1'000);
  }
}

TEST(Grpc, StatusMapping) {
  EXPECT_EQ(GrpcStatusFromHttp(503), GrpcStatus::kUnavailable);
  EXPECT_EQ(GrpcStatusFromHttp(404), GrpcStatus::kUnimplemented);
  EXPECT_EQ(GrpcStatusFromHttp(200), GrpcStatus::kUnknown);
  EXPECT_EQ(GrpcStatusFromReset(ResetCode::kCancel), GrpcStatus::kCancelled);
  EXPECT_EQ(GrpcStatusName(GrpcStatus::kUnauthenticated), "UNAUTHENTICATED");
  EXPECT_EQ(ParseGrpcStatus("14"), GrpcStatus::kUnavailable);
  for (const char* bad : {"", "x", "17", "007"}) EXPECT_EQ(ParseGrpcStatus(bad), GrpcStatus::kUnknown);
  EXPECT_TRUE(IsGrpcContentType("application/grpc+proto"));
  EXPECT_FALSE(IsGrpcContentType("application/grpc-web"));
}

TEST(Grpc, Message) {
  EXPECT_EQ(EncodeGrpcMessage("100% \xc3\xa4\n"), "100%25 %C3%A4%0A");
  EXPECT_EQ(DecodeGrpcMessage("100%25 %C3%A4%0a"), "100% \xc3\xa4\n");
  EXPECT_EQ(DecodeGrpcMessage("%zz%4"), "%zz%4");
}

}  // namespace
}  // namespace weft::codec
