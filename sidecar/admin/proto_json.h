// Envoy's admin messages as JSON text.
#pragma once

#include <string>

#include "sidecar/admin/http_server.h"

namespace google::protobuf {
class Message;
}

namespace weft::admin {

Response Json(const google::protobuf::Message& message);
// Replaces the text of every field the API marks as sensitive, inside Any messages too.
void Redact(google::protobuf::Message* message);

}  // namespace weft::admin
