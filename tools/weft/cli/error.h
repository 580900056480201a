// How a command gives up: thrown from anywhere below main(), which prints the message and returns the code.
//
//   throw Failure("no such file: " + path);          // exit code 1
//   throw Failure("flags contradict", kUsage);       // exit code 2
#pragma once

#include <stdexcept>
#include <string>

namespace weft::cli {

constexpr int kOk = 0;
constexpr int kError = 1;
constexpr int kUsage = 2;

class Failure : public std::runtime_error {
 public:
  explicit Failure(const std::string& message, int code = kError) : std::runtime_error(message), code_(code) {}
  int code() const { return code_; }

 private:
  int code_;
};

}  // namespace weft::cli
