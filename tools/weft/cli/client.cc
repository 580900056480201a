#include "tools/weft/cli/client.h"

#include <httplib.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "tools/weft/cli/error.h"

namespace weft::cli {
namespace {

std::string WithQuery(const std::string& path, const Query& query) {
  std::string out = path;
  char sep = '?';
  for (const auto& [key, value] : query) {
    if (value.empty()) continue;
    out += sep + EncodeSegment(key) + "=" + EncodeSegment(value);
    sep = '&';
  }
  return out;
}

const char* StatusWord(int status) {
  switch (status) {
    case 400: return "BadRequest";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "NotFound";
    case 409: return "Conflict";
    case 413: return "RequestTooLarge";
    case 421: return "Misdirected";
    case 429: return "TooManyRequests";
    case 500: return "InternalError";
    case 503: return "ServiceUnavailable";
  }
  return "Error";
}

// "cart.yaml:7:15: Route/default/cart: spec.rules[0].to[0].weight: must not be negative", one line a detail.
std::string ErrorText(int status, const std::string& body) {
  std::string text = std::string("Error from server (") + StatusWord(status) + "): ";
  Json j = Json::parse(body, nullptr, false);
  if (!j.is_object() || !j.contains("error") || !j["error"].is_object()) {
    return text + (body.empty() ? "status " + std::to_string(status) : body.substr(0, 500));
  }
  const Json& error = j["error"];
  text += error.value("message", "status " + std::to_string(status));
  if (!error.contains("details") || !error["details"].is_array()) return text;
  for (const Json& d : error["details"]) {
    std::string line, place;
    if (d.contains("file") && d["file"].is_string()) place = d["file"].get<std::string>();
    for (const char* key : {"line", "column"}) {
      if (d.contains(key) && d[key].is_number() && d[key].get<int>() > 0) {
        place += (place.empty() ? std::string(key) + " " : ":") + std::to_string(d[key].get<int>());
      }
    }
    if (!place.empty()) line = place + ": ";
    for (const char* key : {"object", "field", "reason"}) {
      if (!d.contains(key) || !d[key].is_string() || d[key].get<std::string>().empty()) continue;
      line += d[key].get<std::string>();
      if (std::string_view(key) != "reason") line += ": ";
    }
    text += "\n  " + line;
  }
  return text;
}

}  // namespace

std::string EncodeSegment(std::string_view s) {
  static const char* hex = "0123456789ABCDEF";
  std::string out;
  for (unsigned char c : s) {
    if (isalnum(c) || c == '-' || c == '.' || c == '_' || c == '~') {
      out += static_cast<char>(c);
    } else {
      out += '%';
      out += hex[c >> 4];
      out += hex[c & 15];
    }
  }
  return out;
}

std::string Client::Token() const {
  std::vector<std::string> places;
  if (!connection_.token_file.empty()) {
    places = {connection_.token_file};
  } else {
    places = {"/var/lib/weft/api-token", "/var/lib/weft-demo/data/api-token"};
  }
  for (const std::string& path : places) {
    std::ifstream in(path);
    std::string token;
    if (in && std::getline(in, token) && !token.empty()) return token;
  }
  if (!connection_.token_file.empty()) throw Failure("cannot read the API token from " + connection_.token_file);
  return "";
}

Json Client::Call(const char* method, const std::string& path, const Query& query, const std::string& body,
                  const std::string& content_type, bool null_on_404) const {
  if (connection_.server.rfind("http://", 0) != 0) {
    throw Failure("--server must be http://HOST:PORT, not \"" + connection_.server + "\"", kUsage);
  }
  httplib::Client http(connection_.server);
  http.set_connection_timeout(5);
  http.set_read_timeout(connection_.timeout_s);
  http.set_write_timeout(connection_.timeout_s);
  httplib::Request request;
  request.method = method;
  request.path = WithQuery(path, query);
  request.headers = {{"Accept", "application/json"}};
  if (std::string_view(method) != "GET") {
    const std::string token = Token();
    if (!token.empty()) request.headers.emplace("Authorization", "Bearer " + token);
    request.headers.emplace("Content-Type", content_type.empty() ? "application/json" : content_type);
    request.body = body;
  }
  httplib::Result result = http.send(request);
  if (!result) {
    throw Failure("unable to connect to the server at " + connection_.server + " (" +
                  httplib::to_string(result.error()) + "): is xds_server up? (--server or WEFT_SERVER names another)");
  }
  if (result->status == 404 && null_on_404) return nullptr;
  if (result->status == 401) {
    throw Failure(ErrorText(401, result->body) +
                  "\n  the API token is in <data-dir>/api-token of the server: name it with --token-file or WEFT_TOKEN_FILE");
  }
  if (result->status < 200 || result->status > 299) throw Failure(ErrorText(result->status, result->body));
  Json parsed = Json::parse(result->body, nullptr, false);
  if (parsed.is_discarded()) throw Failure("the server at " + connection_.server + " did not answer in JSON: is it an xds_server?");
  return parsed;
}

Json Client::Get(const std::string& path, const Query& query) const { return Call("GET", path, query, "", "", false); }
Json Client::GetOrNull(const std::string& path, const Query& query) const {
  return Call("GET", path, query, "", "", true);
}
Json Client::Post(const std::string& path, const std::string& body, const std::string& content_type,
                  const Query& query) const {
  return Call("POST", path, query, body, content_type, false);
}
Json Client::Delete(const std::string& path) const { return Call("DELETE", path, {}, "", "", false); }

}  // namespace weft::cli
