// The PROXY protocol, versions 1 and 2 (haproxy.org/download/2.6/doc/proxy-protocol.txt): what a load balancer says about a
// connection before its first byte. Reading and writing, pure.
//
//   ProxyHeader h;
//   switch (ReadProxyHeader(in, rules, &h)) {
//     case Verdict::kNeedMore: wait for more bytes;
//     case Verdict::kFound:    in.Consume(h.size); h.known says whether there are addresses
//     case Verdict::kNo:       no header, and the rules allow that
//     case Verdict::kReject:   h.error says why; close
//   }
//   std::string bytes = WriteProxyHeader(config, source, destination, tlvs);
//
// Nothing is kept between calls: one asks again with the same bytes and more. A header split into single bytes costs a look
// at 16 of them each time, the whole is read once it is there. Bounds: 107 bytes (v1), 64 KiB + 16 (v2).
// Threads: any. Errors: static texts.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "sidecar/filters/listener/verdict.h"
#include "sidecar/io/buffer.h"
#include "sidecar/model/address.h"
#include "sidecar/model/proxy_protocol.h"

namespace weft::filters {

struct ProxyHeader {
  int version = 0;          // 1 or 2; 0: none was recognised
  size_t size = 0;          // bytes of the header
  bool known = false;       // false: a health check of the balancer itself (LOCAL), or addresses it does not know
  model::Address source, destination;
  std::string tlvs;         // those that the rules keep, as they came (version 2)
  const char* error = "";
};

// The most that has to be readable for ReadProxyHeader to decide.
constexpr size_t kMaxProxyHeader = 16 + 65535;

Verdict ReadProxyHeader(const io::Buffer& in, const model::ProxyProtocolFilter& rules, ProxyHeader* header);

// The header to send before anything else of a connection from source to destination. Addresses that version 2 cannot say
// (pipes) make it LOCAL, version 1 UNKNOWN. received: TLVs of the header that came in, of which the configured ones go on.
std::string WriteProxyHeader(const model::ProxyProtocolHeader& config, const model::Address& source, const model::Address& destination,
                             std::string_view received);

}  // namespace weft::filters
