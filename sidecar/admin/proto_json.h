// Envoy's admin messages as JSON text.
#pragma once

#include <string>

#include "sidecar/admin/http_server.h"

namespace google::protobuf {
class Message;
}

namespace weft::admin {

// zeros: fields with their default value are printed too, as Envoy does for /server_info and /certs.
Response Json(const google::protobuf::Message& message, bool zeros = false);
// Replaces the text of every field the API marks as sensitive, inside Any messages too.
void Redact(google::protobuf::Message* message);

}  // namespace weft::admin
