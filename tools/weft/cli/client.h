// The server's REST API as the commands see it: JSON in, JSON out, every failure a Failure with the server's own words.
//
//   Client c(connection);
//   json status = c.Get("/api/v1/status");
//
// One thread. Each call opens a connection; it gives up after `timeout_s` without an answer.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace weft::cli {

using Json = nlohmann::ordered_json;

struct Connection {
  std::string server = "http://127.0.0.1:8080";
  std::string token_file;  // needed for writes only; empty: the usual places are looked at
  int timeout_s = 30;
};

using Query = std::map<std::string, std::string>;  // empty values are left out

class Client {
 public:
  explicit Client(Connection connection) : connection_(std::move(connection)) {}

  Json Get(const std::string& path, const Query& query = {}) const;
  // Null when the server says 404.
  Json GetOrNull(const std::string& path, const Query& query = {}) const;
  Json Post(const std::string& path, const std::string& body, const std::string& content_type,
            const Query& query = {}) const;
  Json Delete(const std::string& path) const;

 private:
  Json Call(const char* method, const std::string& path, const Query& query, const std::string& body,
            const std::string& content_type, bool null_on_404) const;
  std::string Token() const;

  Connection connection_;
};

// A path segment with everything but unreserved characters percent-encoded.
std::string EncodeSegment(std::string_view s);

}  // namespace weft::cli
