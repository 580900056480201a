// What the files of `why` share. Internal.
#pragma once

#include <string>

#include "xds_server/telemetry/why.h"

namespace weft::insight {

// The failing hop as the sentences need it. Pointers are null where that end reported nothing, and valid as long as the
// events they point into.
struct Finding {
  const Event* client = nullptr;
  const Event* server = nullptr;
  const Event* speaker = nullptr;  // the view the cause was read from
  std::string caller, callee;      // node names
};

inline bool Failed(const Event& e) { return IsError(e.outcome) || IsDenial(e.outcome); }
inline const Attempt* LastAttempt(const Event& e) { return e.attempts.empty() ? nullptr : &e.attempts.back(); }
inline bool OutcomeIs(const Attempt* a, std::string_view prefix) { return a && std::string_view(a->outcome).starts_with(prefix); }

// The cause one view of the failing hop speaks for; "" when the view has nothing to say but a status.
std::string CauseOf(const Event& e);
// Errors concentrated on the version that served this request, while other versions do well: fills cause, policy,
// sentence and evidence.
bool BadRollout(const Finding& f, const std::vector<Cell>& cells, const PolicyLookup& lookup, Explanation& out);

// Sentence, next step and deciding policy of out.cause. Spoils no sentence that is there.
void Say(const Finding& f, const Sources& sources, Explanation& out);
// Every attempt, ejections, both views, identities: appended to out.evidence.
void Evidence(const Finding& f, Explanation& out);

std::string Ms(int64_t us);            // "3.20 s", "17 ms", "1.2 ms", "90 µs"
std::string Clock(int64_t unix_ms);    // "08:12:03.125 UTC"
std::string Percent(uint64_t part, uint64_t whole);
std::string Answer(const Event& e);    // "status 503", "gRPC status 14", "no response"

}  // namespace weft::insight
