// Entry functions for fuzzing, libFuzzer-shaped; test/fuzz has their corpora and runs them.
//
// Each treats its input as a byte stream from a hostile peer, feeds it whole and in pieces derived from the input, lets
// a small proxy answer, and stops the process (WEFT_CHECK) when an invariant breaks: outcomes that depend on how bytes
// were cut, a body above its bound, fields that could not be forwarded, bits after the end.
#pragma once

#include <cstddef>
#include <cstdint>

namespace weft::codec {

int FuzzHttp1Server(const uint8_t* data, size_t size);
int FuzzHttp1Client(const uint8_t* data, size_t size);
int FuzzHttp2Server(const uint8_t* data, size_t size);  // after the client preface and SETTINGS
int FuzzHttp2Client(const uint8_t* data, size_t size);  // after the server's SETTINGS, one request under way
int FuzzGrpcReader(const uint8_t* data, size_t size);

}  // namespace weft::codec
