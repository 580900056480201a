"""A sidecar joins a real xds_server: identity, registration, configuration, renewal, loss of the server. In a network
namespace of its own, because a member's listeners have fixed ports."""
import http.client, json, os, subprocess, time

from cases import *
from envoy_config import *
from loopback import *


class Server:
    def __init__(self, data=None, xds="127.0.0.1:0", http_address="127.0.0.1:0"):
        self.data = data or path("data%d" % len(os.listdir(TMP)))
        self.process = start(binary("//xds_server:xds_server"), "--data-dir", self.data, "--http-address", http_address, "--xds-address", xds, "--otlp-grpc-address", "",
                             "--otlp-http-address", "", "--leaf-lifetime-s", "20", stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        assert line.startswith("xds_server ready"), (line, read(self.process.log))
        words = dict(w.split("=", 1) for w in line.split()[2:])
        self.http, self.port = words["http"], int(words["port"])

    def call(self, method, path, body=None, content="application/json"):
        c = http.client.HTTPConnection(self.http, timeout=10)
        c.request(method, path, body, {"Authorization": "Bearer " + open(self.data + "/api-token").read().strip(), "Content-Type": content})
        r = c.getresponse()
        text = r.read().decode()
        assert r.status < 300, (method, path, r.status, text)
        return json.loads(text) if text else None

    def token(self, service):
        return write(service + ".token", self.call("POST", "/api/v1/tokens", json.dumps({"service": service}))["token"] + "\n")

    def kill(self):
        self.process.kill()
        self.process.wait()


def member(service, port, server_port, token, **extra):
    mesh = {"@type": "type.googleapis.com/weft.mesh.v1.MeshConfig", "server_address": "127.0.0.1:%d" % server_port, "token_file": token,
            "trust_domain": "weft.local", "telemetry": True,
            "workload": {"id": service + "-1", "service": service, "namespace": "default", "version": "v1", "address": "127.0.0.1",
                         "ports": [{"number": port, "protocol": "HTTP", "service_port": 80}]}}
    mesh.update(extra)
    return {"node": {"id": service + "-1", "cluster": service, "metadata": {"NAMESPACE": "default"}},
            "admin": {"address": {"pipe": {"path": path(service + ".sock")}}},
            "bootstrap_extensions": [{"name": "weft.mesh", "typed_config": mesh}]}


def test_join_serve_renew_and_outlive_the_server():
    b = Backend("cart")
    server = Server()
    s = Sidecar(member("cart", b.port, server.port, server.token("cart")))
    status = s.json("/weft/status")
    assert status["mesh"]["joined"] and status["mesh"]["identity"] == "spiffe://weft.local/ns/default/sa/cart", status
    assert {"outbound", "inbound"} <= {line.split("::")[0] for line in s.admin("/listeners")[1].splitlines()}, s.admin("/listeners")
    assert not s.json("/weft/status")["mesh"]["endpoint_active"]
    assert 'istio_build{component="proxy"' in s.admin("/stats/prometheus")[1]  # the server's listeners count Istio's metrics
    assert s.admin("/healthcheck/ok", "POST")[0] == 200
    wait_for("callers are sent here", lambda: s.json("/weft/status")["mesh"]["endpoint_active"])
    wait_for("own endpoint came back by EDS", lambda: "127.0.0.1:15006" in s.admin("/clusters")[1] or ":%d::" % b.port in s.admin("/clusters")[1])
    # A policy is in force within a second.
    policy = "apiVersion: weft/v1\nkind: Route\nmetadata: {name: cart}\nspec: {rules: [{matches: [{prefix: /teapot}], respond_status: 418, respond_body: short}]}\n"
    began = time.monotonic()
    server.call("POST", "/api/v1/apply", policy, "application/yaml")
    wait_for("the route came", lambda: "418" in s.admin("/config_dump?resource=dynamic_route_configs")[1] or "418" in s.admin("/config_dump")[1])
    assert time.monotonic() - began < 5
    # Renewal at half of 20 s, with the discovery stream left alone.
    expires = s.json("/weft/status")["mesh"]["expires_unix_s"]
    wait_for("the identity is renewed", lambda: s.json("/weft/status")["mesh"]["expires_unix_s"] > expires, 30)
    assert s.stat("weft.mesh.renew") >= 1 and s.stat("control_plane.connected_state") == 1
    # The server dies: configuration stays; the same store under the same address takes the sidecar back.
    server.kill()
    wait_for("loss is seen", lambda: s.stat("control_plane.connected_state") == 0)
    assert s.admin("/ready")[0] == 200 and "inbound" in s.admin("/listeners")[1]
    again = Server(server.data, "127.0.0.1:%d" % server.port)
    wait_for("back", lambda: s.stat("control_plane.connected_state") == 1, 60)
    wait_for("active again", lambda: s.json("/weft/status")["mesh"]["endpoint_active"], 30)
    # Draining is told; the key is nowhere on disk.
    assert s.stop() == 0
    assert "PRIVATE" not in "".join(read(f) for f in os.listdir(TMP) if f.startswith("sidecar"))
    again.kill()


def test_server_down_at_first_start_is_said_and_waited_for():
    server = Server()
    token = server.token("pay")
    server.kill()
    s = Sidecar(member("pay", 1, server.port, token), ready=False)
    wait_for("the log says so", lambda: "waits for it" in s.log())
    status, text = s.admin("/ready")
    assert status == 503 and "INITIALIZING" in text and "cannot be reached" in text, text
    again = Server(server.data, "127.0.0.1:%d" % server.port)
    wait_for("ready", lambda: s.admin("/ready")[0] == 200, 60)
    s.stop(), again.kill()


def test_a_token_is_bound_to_its_server_and_its_service():
    server, other = Server(), Server()
    # A server with another root does not get the secret.
    s = Sidecar(member("cart", 1, other.port, server.token("cart")), ready=False)
    wait_for("the pin holds", lambda: "pinned root" in s.admin("/ready")[1])
    s.stop()
    # A token for cart does not make a pay.
    s = Sidecar(member("pay", 1, server.port, server.token("cart")), ready=False)
    wait_for("refused", lambda: s.admin("/ready")[0] == 503 and ("PERMISSION_DENIED" in s.log() or "refused" in s.log()))
    s.stop(), server.kill(), other.kill()


if __name__ == "__main__":
    in_own_namespace()
    main()
