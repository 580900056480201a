// Tasks and timers that call a member function of the object they are part of.
//
//   class Connection { void Flush();  MemberTask<Connection, &Connection::Flush> flush_{this}; };
#pragma once

#include "sidecar/io/loop.h"

namespace weft::upstream {

template <typename T, void (T::*Fn)()>
struct MemberTask : io::Task {
  explicit MemberTask(T* s) : io::Task([](io::Task* t) { (static_cast<MemberTask*>(t)->self->*Fn)(); }), self(s) {}
  T* self;
};

template <typename T, void (T::*Fn)()>
struct MemberTimer : io::Timer {
  explicit MemberTimer(T* s) : io::Timer([](io::Timer* t) { (static_cast<MemberTimer*>(t)->self->*Fn)(); }), self(s) {}
  T* self;
};

}  // namespace weft::upstream
