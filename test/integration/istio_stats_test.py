"""Istio's standard metrics between two sidecars with mutual TLS, both of whom report: exact labels, HTTP, gRPC and TCP; that
what public dashboards ask for is there; and the address that serves nothing but /stats/prometheus."""
import datetime, http.client, http.server, re, socket, threading, unittest

from cases import *
from envoy_config import *
from loopback import *

ISTIO = {"name": "istio.stats", "typed_config": {"@type": T + "stats.PluginConfig"}}
HTTP = ("requests_total", "request_duration_milliseconds", "request_bytes", "response_bytes")
TCP = ("tcp_connections_opened_total", "tcp_connections_closed_total", "tcp_sent_bytes_total", "tcp_received_bytes_total")
# What the dashboards for meshes, services and workloads group by and filter with.
ASKED = """reporter source_workload source_workload_namespace source_principal source_app source_version source_canonical_service
source_canonical_revision source_cluster destination_workload destination_workload_namespace destination_principal destination_app
destination_version destination_service destination_service_name destination_service_namespace destination_canonical_service
destination_canonical_revision destination_cluster request_protocol response_flags connection_security_policy""".split()


def samples(text):
    """[(name, labels, value)] of the exposition format, strictly: what does not parse fails."""
    out = []
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        m = re.fullmatch(r'([a-zA-Z_:][\w:]*)(?:\{((?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\n"])*",?)*)\})? (\S+)', line)
        assert m, line
        out.append((m[1], dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', m[2] or "")), float(m[3])))
    return out


class Grpc(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        for k, v in (("content-type", "application/grpc"), ("grpc-status", "7"), ("content-length", "16")):
            self.send_header(k, v)
        self.end_headers()
        self.wfile.write(b"\0\0\0\0\1x" + 2 * b"\0\0\0\0\0")

    def log_message(self, *_):
        pass


def echo():
    """A TCP server that sends twice what it gets, and its port."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            c, _ = server.accept()
            while data := c.recv(65536):
                c.sendall(data * 2)
            c.close()

    threading.Thread(target=serve, daemon=True).start()
    return server.getsockname()[1]


def node(workload, ns, version):
    return {"id": workload, "cluster": workload, "metadata": {
        "WORKLOAD_NAME": workload, "NAMESPACE": ns, "CLUSTER_ID": "east", "ISTIO_VERSION": "1.27.0",
        "LABELS": {"app": workload.split("-")[0], "version": version, "service.istio.io/canonical-name": workload.split("-")[0],
                   "service.istio.io/canonical-revision": version}}}


def directed(listener, direction):
    return {**listener, "traffic_direction": direction}


def with_filters(listener, *first):
    listener["filter_chains"][0]["filters"][:0] = first
    return listener


def labels_of(sidecar, metric, **these):
    return [(l, v) for n, l, v in samples(sidecar.admin("/stats/prometheus")[1]) if n == "istio_" + metric and these.items() <= l.items()]


class TwoSidecars(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        certs = Certs()
        a, b = (certs.leaf(n, "URI:spiffe://mesh/ns/%s/sa/%s" % (ns, n)) for n, ns in (("front", "shop"), ("back", "pay")))
        cls.certificate = a[0]
        app, grpc, tcp = Backend("app"), http.server.ThreadingHTTPServer(("127.0.0.1", 0), Grpc), echo()
        threading.Thread(target=grpc.serve_forever, daemon=True).start()
        peer = {"prefix": "spiffe://mesh/"}
        serving = tls(b, certs.ca, server=True, sans=[peer], require_client_certificate=True)
        host = {"filter_metadata": {"istio": {"services": [{"host": "back.pay.svc.cluster.local", "name": "back", "namespace": "pay"}]}}}
        in_http = hcm([route("/grpc", "grpc"), route("/", "app")], filters=[ISTIO])
        cls.back = Sidecar({"node": node("back-v2", "pay", "v2"), **static(
            [directed(listener("http", in_http, transport=serving), "INBOUND"),
             directed(with_filters(listener("tcp", tcp_proxy("tcp"), transport=serving), ISTIO), "INBOUND")],
            [cluster("app", app.port, metadata=host), cluster("grpc", grpc.server_port, metadata=host), cluster("tcp", tcp, metadata=host)])})

        def to_back(name, port, **kw):
            c = cluster(name, port, tls=tls(a, certs.ca, sans=[peer], **kw), metadata=host)
            c["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["metadata"] = {"filter_metadata": {"istio": {"workload": "back-v2;pay;back;v2;west"}}}
            return c

        out_http = hcm([route("/gone", "gone"), route("/", "http")], filters=[ISTIO])
        cls.scrape = free_port()
        cls.front = Sidecar({"node": node("front-v1", "shop", "v1"), **static(
            [directed(listener("http", out_http), "OUTBOUND"), directed(with_filters(listener("tcp", tcp_proxy("tcp")), ISTIO), "OUTBOUND")],
            [to_back("http", cls.back.port("http"), alpn=["http/1.1"]), to_back("tcp", cls.back.port("tcp")), to_back("gone", free_port())])},
            "--prometheus-address", "127.0.0.1:%d" % cls.scrape)

    FRONT = {"source_workload": "front-v1", "source_canonical_service": "front", "source_canonical_revision": "v1", "source_workload_namespace": "shop",
             "source_app": "front", "source_version": "v1", "source_cluster": "east"}
    BACK = {"destination_workload": "back-v2", "destination_workload_namespace": "pay", "destination_canonical_service": "back",
            "destination_canonical_revision": "v2", "destination_service_namespace": "pay"}
    SERVICE = {"destination_service": "back.pay.svc.cluster.local", "destination_service_name": "back"}
    IDS = {"source_principal": "spiffe://mesh/ns/shop/sa/front", "destination_principal": "spiffe://mesh/ns/pay/sa/back"}
    SOURCE = {"reporter": "source", **FRONT, **BACK, **SERVICE, **IDS, "destination_app": "unknown", "destination_version": "unknown",
              "destination_cluster": "west", "connection_security_policy": "unknown"}
    DESTINATION = {"reporter": "destination", **BACK, **SERVICE, **IDS, "destination_app": "back", "destination_version": "v2", "destination_cluster": "east",
                   "source_workload": "unknown", "source_canonical_service": "unknown", "source_canonical_revision": "latest",
                   "source_workload_namespace": "shop", "source_app": "unknown", "source_version": "unknown", "source_cluster": "unknown",
                   "connection_security_policy": "mutual_tls"}

    def counted(self, sidecar, metric, expected, value):
        """The one series that has these labels, and no others, has the value."""
        def there():
            found = labels_of(sidecar, metric, **expected)
            return found and found[0][1] == value and found
        found = wait_for("%s %s" % (metric, value), there)
        self.assertEqual([l for l, _ in found], [expected])

    def test_http_at_both_ends(self):
        for _ in range(3):
            self.assertEqual(self.front.get("/status/200", "http")[0], 200)
        self.assertEqual(self.front.get("/status/503", "http")[0], 503)
        for sidecar, base in ((self.front, self.SOURCE), (self.back, self.DESTINATION)):
            http = {**base, "request_protocol": "http", "grpc_response_status": "", "response_flags": "-"}
            self.counted(sidecar, "requests_total", {**http, "response_code": "200"}, 3)
            self.counted(sidecar, "request_duration_milliseconds_count", {**http, "response_code": "200"}, 3)
            self.counted(sidecar, "request_bytes_count", {**http, "response_code": "200"}, 3)
            wait_for("503", lambda: labels_of(sidecar, "requests_total", response_code="503"))
            (_, total), = labels_of(sidecar, "response_bytes_sum", response_code="200", request_protocol="http")
            self.assertTrue(3 * 50 < total < 3 * 2000, total)  # heads and bodies
            (_, most), = labels_of(sidecar, "response_bytes_bucket", response_code="200", request_protocol="http", le="2500")
            self.assertEqual(most, 3)

    def test_nobody_there(self):
        self.assertEqual(self.front.get("/gone", "http")[0], 503)
        (labels, _), = labels_of(self.front, "requests_total", destination_principal="unknown")
        self.assertEqual(labels, {**self.SOURCE, "source_principal": "unknown", "destination_principal": "unknown", "request_protocol": "http",
                                  "grpc_response_status": "", "response_code": "503", "response_flags": "URX,UF"})

    def test_grpc_at_both_ends(self):
        self.assertEqual(self.front.get("/grpc/S/M", "http", "POST", b"\0\0\0\0\0\0\0\0\0\3abc", {"content-type": "application/grpc", "te": "trailers"})[0], 200)
        for sidecar, base in ((self.front, self.SOURCE), (self.back, self.DESTINATION)):
            grpc = {**base, "request_protocol": "grpc", "grpc_response_status": "7", "response_code": "200", "response_flags": "-"}
            for metric, n in (("requests_total", 1), ("request_messages_total", 2), ("response_messages_total", 3)):
                self.counted(sidecar, metric, grpc, n)

    def test_tcp_at_both_ends_while_it_lasts_and_when_it_ends(self):
        c = socket.create_connection(("127.0.0.1", self.front.port("tcp")))
        c.sendall(b"x" * 1000)
        got = 0
        while got < 2000:
            got += len(c.recv(65536))
        sides = [(s, {**base, "request_protocol": "tcp", "response_flags": "-"}) for s, base in ((self.front, self.SOURCE), (self.back, self.DESTINATION))]
        for sidecar, tcp in sides:
            self.counted(sidecar, "tcp_connections_opened_total", tcp, 1)
            self.counted(sidecar, "tcp_received_bytes_total", tcp, 1000)
            self.counted(sidecar, "tcp_sent_bytes_total", tcp, 2000)
            self.counted(sidecar, "tcp_connections_closed_total", tcp, 0)
        c.sendall(b"x")
        self.assertEqual(c.recv(10), b"xx")
        c.close()
        for sidecar, tcp in sides:
            self.counted(sidecar, "tcp_connections_closed_total", tcp, 1)
            self.counted(sidecar, "tcp_received_bytes_total", tcp, 1001)
            self.counted(sidecar, "tcp_sent_bytes_total", tcp, 2002)

    def test_tcp_that_was_refused(self):
        c = socket.create_connection(("127.0.0.1", self.back.port("tcp")))  # no certificate
        c.sendall(b"hello, this is not TLS")
        c.settimeout(10)
        try:
            while c.recv(100):
                pass
        except ConnectionResetError:
            pass
        (labels, closed), = wait_for("counted", lambda: labels_of(self.back, "tcp_connections_closed_total", source_principal="unknown"))
        told = ("reporter", "source_workload_namespace", "destination_principal", "destination_workload", "connection_security_policy")
        self.assertEqual([labels[k] for k in told], ["destination", "unknown", "spiffe://mesh/ns/pay/sa/back", "back-v2", "none"])
        self.assertEqual(closed, 1)

    def test_what_dashboards_ask_for_is_there(self):
        self.front.get("/status/200", "http")
        socket.create_connection(("127.0.0.1", self.front.port("tcp"))).close()
        def series():
            return {n: l for n, l, _ in samples(self.front.admin("/stats/prometheus")[1]) if n.startswith("istio_")}
        wait_for("both kinds", lambda: {"istio_requests_total", "istio_tcp_connections_closed_total"} <= series().keys())
        found = series()
        self.assertEqual(found["istio_build"], {"component": "proxy", "tag": "1.27.0"})
        for metric in HTTP + TCP:
            names = ["istio_" + metric] if metric.endswith("_total") else ["istio_%s_%s" % (metric, x) for x in ("bucket", "sum", "count")]
            for name in names:
                missing = set(ASKED) - found[name].keys()
                self.assertFalse(missing, (name, missing))
                self.assertEqual({"response_code", "grpc_response_status"} <= found[name].keys(), metric in HTTP)
                self.assertEqual("le" in found[name], name.endswith("_bucket"))

    def test_when_certificates_end(self):
        with open(self.certificate) as f:
            end = run("openssl", "x509", "-noout", "-enddate", "-dateopt", "iso_8601", input=f.read()).stdout
        found = {n: l for n, l, v in samples(self.front.admin("/stats/prometheus")[1]) if n.endswith("expiration_unix_time_seconds") and l["envoy_cluster_name"] == "http"
                 and datetime.datetime.fromtimestamp(v, datetime.timezone.utc).strftime("notAfter=%Y-%m-%d %H:%M:%SZ") == end.strip()}
        self.assertEqual(found, {"envoy_cluster_ssl_certificate_expiration_unix_time_seconds": {
            "envoy_tls_certificate": "unnamed_cert_e3b0c442", "envoy_cluster_name": "http"}})
        (name, labels), = [(n, l) for n, l, _ in samples(self.back.admin("/stats/prometheus")[1]) if n.startswith("envoy_listener_ssl_certificate_")][:1]
        self.assertEqual((name, labels["envoy_listener_address"]), ("envoy_listener_ssl_certificate_expiration_unix_time_seconds", "127.0.0.1_0"))

    def test_the_address_for_prometheus_serves_nothing_else(self):
        def ask(path, method="GET"):
            c = http.client.HTTPConnection("127.0.0.1", self.scrape, timeout=10)
            c.request(method, path, headers={"Host": "front.shop:15090"})  # by whatever name it is found
            r = c.getresponse()
            return r.status, r.getheader("content-type"), r.read().decode()

        status, kind, text = ask("/stats/prometheus")
        self.assertEqual((status, kind.split(";")[0]), (200, "text/plain"))
        self.assertIn("envoy_server_live{} 1", text)
        for path in ("/stats", "/config_dump", "/clusters", "/certs", "/ready", "/logging"):
            self.assertEqual(ask(path)[0], 404, path)
        self.assertEqual(ask("/quitquitquit", "POST")[0], 404)


class Configuration(unittest.TestCase):
    def run_with(self, **config):
        app = Backend("app")
        filters = [{"name": "istio.stats", "typed_config": {"@type": T + "stats.PluginConfig", **config}}]
        s = Sidecar(static([directed(listener("l", hcm([route("/", "app")], filters=filters)), "INBOUND")], [cluster("app", app.port)]))
        self.assertEqual(s.get("/", headers={"Host": "some.test:8080"})[0], 200)
        return s, wait_for("counted", lambda: [l for n, l, _ in samples(s.admin("/stats/prometheus")[1]) if n == "istio_requests_total"])[0]

    def test_the_authority_names_what_nothing_else_does(self):
        s, labels = self.run_with()
        self.assertEqual((labels["destination_service"], labels["destination_service_name"]), ("some.test:8080",) * 2)
        self.assertEqual(labels["connection_security_policy"], "none")
        self.assertEqual(labels["destination_workload"], "unknown")

    def test_what_can_be_changed_and_what_is_named_in_a_warning(self):
        s, labels = self.run_with(disable_host_header_fallback=True, tcp_reporting_duration="15s",
                                  metrics=[{"tags_to_remove": ["source_principal"]}, {"name": "request_bytes", "drop": True},
                                           {"dimensions": {"x": "request.path"}}], definitions=[{"name": "mine", "value": "1"}])
        self.assertEqual(labels["destination_service"], "unknown")
        self.assertNotIn("source_principal", labels)
        self.assertFalse([n for n, _, _ in samples(s.admin("/stats/prometheus")[1]) if n.startswith("istio_request_bytes")])
        for field in ("metrics[2].dimensions", "definitions", "tcp_reporting_duration"):
            self.assertIn(field, s.log())

    def test_waypoint(self):
        _, labels = self.run_with(reporter="SERVER_GATEWAY")
        self.assertEqual(labels["reporter"], "waypoint")


if __name__ == "__main__":
    main()
