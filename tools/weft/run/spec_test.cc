#include "tools/weft/run/spec.h"

#include <gtest/gtest.h>

#include "tools/weft/cli/client.h"
#include "tools/weft/run/bootstrap.h"

namespace weft::run {
namespace {

TEST(ParsePort, AllForms) {
  struct Case {
    const char* text;
    uint16_t number;
    const char* protocol;
    uint16_t service_port;
  };
  for (const Case& c : {Case{"8000", 8000, "http", 0}, {"50051:grpc", 50051, "grpc", 0}, {"8000:http@80", 8000, "http", 80},
                        {"6379:tcp@6379", 6379, "tcp", 6379}, {"8000@80", 8000, "http", 80}}) {
    std::string error;
    auto p = ParsePort(c.text, error);
    ASSERT_TRUE(p.has_value()) << error;
    EXPECT_EQ(p->number, c.number);
    EXPECT_EQ(p->protocol, c.protocol);
    EXPECT_EQ(p->service_port, c.service_port);
  }
  for (const char* bad : {"", "0", "65536", "x", "80:udp", "80:", "80@", "80@0", "80:http@x", "-1", "80 "}) {
    std::string error;
    EXPECT_FALSE(ParsePort(bad, error).has_value()) << bad;
    EXPECT_NE(error.find("--port"), std::string::npos);
  }
}

TEST(ParseReady, AllForms) {
  std::string error;
  EXPECT_EQ(ParseReady("tcp", 8000, error)->port, 8000);
  EXPECT_EQ(ParseReady("tcp:9", 8000, error)->port, 9);
  EXPECT_EQ(ParseReady("none", 0, error)->kind, ReadySpec::Kind::kNone);
  auto http = ParseReady("http:/healthz", 8000, error);
  ASSERT_TRUE(http.has_value());
  EXPECT_EQ(http->path, "/healthz");
  EXPECT_EQ(http->port, 8000);
  EXPECT_EQ(ParseReady("http:81/x?y=1", 8000, error)->port, 81);
  for (const char* bad : {"", "udp", "tcp:", "tcp:x", "http", "http:", "http:80", "http:x/y", "http:/a b", "http:/a\r\nX: y"}) {
    error.clear();
    EXPECT_FALSE(ParseReady(bad, 8000, error).has_value()) << bad;
    EXPECT_NE(error.find("--ready"), std::string::npos);
  }
}

TEST(Labels, AreDnsLabels) {
  EXPECT_TRUE(IsLabel("cart"));
  EXPECT_TRUE(IsLabel("cart-2"));
  for (const char* bad : {"", "Cart", "-a", "a-", "a.b", "a/b", "<img src=x>"}) EXPECT_FALSE(IsLabel(bad)) << bad;
  EXPECT_TRUE(IsVersion("v1.2_rc"));
  EXPECT_FALSE(IsVersion("a|b"));
}

TEST(Bootstrap, IsEnvoysPlusOneExtension) {
  BootstrapSpec s;
  s.workload_id = "cart-1";
  s.service = "cart";
  s.version = "v2";
  s.address = "10.77.0.3";
  s.ports = {{8000, "http", 80}, {50051, "grpc", 0}};
  s.server_address = "10.77.0.1:15012";
  s.token_file = "/t";
  s.admin_socket = "/a.sock";
  auto b = cli::Json::parse(RenderBootstrap(s));
  EXPECT_EQ(b["node"]["id"], "cart-1");
  EXPECT_EQ(b["admin"]["address"]["pipe"]["mode"], 0600);
  EXPECT_EQ(b["dynamic_resources"]["ads_config"]["api_type"], "DELTA_GRPC");
  EXPECT_TRUE(b["dynamic_resources"]["ads_config"]["grpc_services"].is_array());
  const auto& cluster = b["static_resources"]["clusters"][0];
  EXPECT_EQ(cluster["type"], "STATIC");
  EXPECT_EQ(cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["port_value"], 15012);
  const auto& mesh = b["bootstrap_extensions"][0]["typed_config"];
  EXPECT_EQ(mesh["@type"], "type.googleapis.com/weft.mesh.v1.MeshConfig");
  EXPECT_EQ(mesh["workload"]["ports"][0]["protocol"], "HTTP");
  EXPECT_EQ(mesh["workload"]["ports"][0]["service_port"], 80);
  EXPECT_EQ(mesh["workload"]["ports"][1]["service_port"], 50051);
  EXPECT_FALSE(mesh.contains("identity_dir"));
  s.server_address = "xds.example:15012";
  EXPECT_EQ(cli::Json::parse(RenderBootstrap(s))["static_resources"]["clusters"][0]["type"], "STRICT_DNS");
}

}  // namespace
}  // namespace weft::run
