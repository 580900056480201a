// DNS messages as bytes (RFC 1035, EDNS RFC 6891): what the sidecar answers and asks. Pure; every read is bounds-checked,
// compression pointers go strictly backwards, names and counts are limited.
//
//   Query q;
//   if (ParseQuery(packet, &q) == QueryVerdict::kOk) reply = BuildAnswer(q, packet, Rcode::kNoError, {ip}, 30, 512);
//
// Names are text in lower case without the trailing dot; bytes outside printable ASCII, dots inside a label and
// backslashes are written \DDD, so they never equal an ordinary name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sidecar/model/address.h"

namespace weft::dns {

enum Type : uint16_t { kA = 1, kCname = 5, kAaaa = 28, kOpt = 41, kAny = 255 };
enum class Rcode : uint8_t { kNoError = 0, kFormErr = 1, kServFail = 2, kNxDomain = 3, kNotImp = 4, kRefused = 5 };

constexpr size_t kHeader = 12, kMaxUdp = 512, kMaxEdns = 1232, kMaxQuery = 4096;

struct Query {
  uint16_t id = 0;
  bool recursion_desired = false;
  bool edns = false;
  size_t udp_size = kMaxUdp;  // what the client takes over UDP: 512 .. kMaxEdns
  std::string name;
  uint16_t type = 0;
  size_t question_end = 0;    // the question is [kHeader, question_end)
};

enum class QueryVerdict {
  kOk,
  kDrop,    // not a query at all: no answer (an answer to an answer would loop)
  kFormErr, kNotImp, kRefused,  // answer with that code
};
QueryVerdict ParseQuery(std::string_view packet, Query* out);

// An answer to the query with the question echoed. A records for 4-byte addresses of an A question, AAAA for 16-byte
// ones; ANY gets both. What does not fit into limit bytes is left out and TC is set. authoritative: AA.
std::string BuildAnswer(const Query& query, std::string_view packet, Rcode rcode, const std::vector<model::Ip>& addresses,
                        uint32_t ttl_s, size_t limit, bool authoritative = true);
// An answer for a packet that ParseQuery refused (header only).
std::string BuildError(std::string_view packet, Rcode rcode);

// A question with recursion desired and EDNS. Empty when the name is not a valid host name (labels 1..63, 253 in all).
std::string BuildQuery(uint16_t id, std::string_view name, uint16_t type);

struct Response {
  Rcode rcode = Rcode::kNoError;
  bool truncated = false;
  std::vector<model::Ip> addresses;  // of the asked type, CNAMEs followed within the message
  uint32_t ttl_s = 0;                // smallest on the way; 0 when there are no addresses. At most a week.
};
// False: malformed, or not an answer to that question.
bool ParseResponse(std::string_view packet, std::string_view name, uint16_t type, Response* out);

uint16_t MessageId(std::string_view packet);
void SetMessageId(std::string& packet, uint16_t id);
// Whether response has QR set, no more than one question, and the same question bytes as query (case ignored).
bool IsResponseTo(std::string_view response, std::string_view query);

}  // namespace weft::dns
