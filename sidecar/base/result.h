// Errors as values for configuration and start-up code (the request path uses proxy::Failure instead).
//
//   Result<int> Parse(std::string_view s);
//   auto r = Parse(s);
//   if (!r) return r.error().In("listeners[2].address");
#pragma once

#include <string>
#include <utility>
#include <variant>

namespace weft::base {

// What went wrong and where: message "port 70000 is out of range", where "static_resources.listeners[2].address".
class Error {
 public:
  explicit Error(std::string message) : message_(std::move(message)) {}
  // Prefixes the place, outermost last: Error("x").In("b").In("a") is at "a.b".
  Error In(const std::string& place) && {
    where_ = where_.empty() || place.empty() ? place + where_ : (where_[0] == '[' ? place + where_ : place + "." + where_);
    return std::move(*this);
  }
  const std::string& message() const { return message_; }
  const std::string& where() const { return where_; }
  std::string ToString() const { return where_.empty() ? message_ : where_ + ": " + message_; }

 private:
  std::string message_, where_;
};

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : v_(std::move(value)) {}
  Result(Error error) : v_(std::move(error)) {}
  explicit operator bool() const { return v_.index() == 0; }
  T& operator*() & { return std::get<0>(v_); }
  T&& operator*() && { return std::get<0>(std::move(v_)); }
  const T& operator*() const& { return std::get<0>(v_); }
  T* operator->() { return &std::get<0>(v_); }
  const T* operator->() const { return &std::get<0>(v_); }
  Error& error() { return std::get<1>(v_); }

 private:
  std::variant<T, Error> v_;
};

struct Ok {};
using Status = Result<Ok>;

}  // namespace weft::base
