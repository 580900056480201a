#!/usr/bin/env python3
"""The built sidecar with Envoy files on loopback, against real peers: curl, h2load, grpc++, openssl, redis, WebSockets."""
import json, os, signal, socket, subprocess, sys, threading, time, unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "../support"))
from loopback import *  # noqa: F403


class Backend(BaseHTTPRequestHandler):
    """Answers with what it saw, as JSON. /status/N answers N; /drop closes without an answer; /slow takes 2 s."""
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        n = int(self.headers.get("content-length") or 0)
        if self.headers.get("transfer-encoding") == "chunked":
            body = b""
            while (size := int(self.rfile.readline(), 16)):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(n)
        self.server.seen.append(self.path)
        if self.path == "/drop":
            self.close_connection = True
            return self.connection.shutdown(socket.SHUT_RDWR)
        if self.path == "/slow":
            time.sleep(2)
        status = int(self.path[8:]) if self.path.startswith("/status/") else 200
        if self.path == "/flaky" and self.server.seen.count("/flaky") % 2:
            status = 503
        size = int(self.path[7:]) if self.path.startswith("/bytes/") else None
        out = b"x" * size if size is not None else json.dumps({"method": self.command, "path": self.path, "body": len(body), "headers": {k.lower(): v for k, v in self.headers.items()}}).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(out)))
        self.send_header("x-backend", str(self.server.server_address[1]))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(out)

    do_POST = do_PUT = do_HEAD = do_DELETE = do_GET

    def log_message(self, *a):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 512

    def handle_error(self, request, client_address):
        pass  # a peer that left is not news


def backend():
    s = Server(("127.0.0.1", 0), Backend)
    s.daemon_threads, s.seen = True, []
    threading.Thread(target=s.serve_forever, daemon=True).start()
    return s


def curl(port, what="/", *flags, scheme="http"):
    """(status, body, headers)"""
    r = run("curl", "-sS", "-m", "20", "-D", "-", *flags, "%s://127.0.0.1:%d%s" % (scheme, port, what))
    if r.returncode:
        return 0, r.stderr, {}
    head, _, body = r.stdout.replace("\r\n", "\n").partition("\n\n")
    while head.split(" ")[1].startswith("1"):
        head, _, body = body.partition("\n\n")
    lines = head.split("\n")
    return int(lines[0].split()[1]), body, {k.lower(): v.strip() for k, _, v in (l.partition(":") for l in lines[1:])}


class Http(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.back, cls.dead = backend(), free_port()
        cls.certs = Certs()
        cls.server = cls.certs.leaf("server", "DNS:server.test,URI:spiffe://t/ns/default/sa/server")
        cls.client = cls.certs.leaf("client", "URI:spiffe://t/ns/default/sa/client")
        cls.back_port = cls.back.server_address[1]
        cls.front, cls.mtls, cls.pair, cls.mid = (free_port() for _ in range(4))
        retry = {"retry_on": "5xx,connect-failure", "num_retries": 2}
        routes = [route("/retry/", "back", prefix_rewrite="/", retry_policy=retry), route("/timeout/", "back", prefix_rewrite="/", timeout="0.3s"),
                  route("/dead", "dead"), {"match": {"prefix": "/direct"}, "direct_response": {"status": 418, "body": {"inline_string": "teapot"}}},
                  route("/gone", "nowhere"), route("/", "back", timeout="10s")]
        rbac = {"name": "rbac", "typed_config": any_("filters.http.rbac.v3.RBAC", rules={"action": "DENY", "policies": {"no-secrets": {
            "permissions": [{"url_path": {"path": {"prefix": "/secret"}}}], "principals": [{"any": True}]}}})}
        log = [{"name": "f", "typed_config": any_("access_loggers.file.v3.FileAccessLog", path=path("access.log"))}]
        server_tls = tls(cls.server, cls.certs.ca, server=True, require_client_certificate=True)
        client_tls = tls(cls.client, cls.certs.ca, alpn=["h2"], sans=["spiffe://t/ns/default/sa/server"])
        cls.sidecar = Sidecar(
            [http(cls.front, routes, filters=[rbac], access_log=log, upgrade_configs=[{"upgrade_type": "websocket"}]),
             http(cls.mid, [route("/", "back")], server_tls, upgrade_configs=[{"upgrade_type": "websocket"}], http2_protocol_options={"allow_connect": True}),
             http(cls.pair, [route("/", "mid")], upgrade_configs=[{"upgrade_type": "websocket"}])],
            [cluster("back", cls.back_port), cluster("dead", cls.dead), cluster("mid", cls.mid, h2=True, tls=client_tls)])

    def test_get_and_headers(self):
        status, body, headers = curl(self.front, "/hello?x=1", "-H", "x-envoy-internal: spoofed", "-H", "Connection: x-hop", "-H", "x-hop: 1")
        self.assertEqual(status, 200)
        seen = json.loads(body)
        self.assertEqual(seen["path"], "/hello?x=1")
        for h in ("x-request-id", "x-forwarded-proto"):
            self.assertIn(h, seen["headers"])
        for h in ("x-hop", "connection"):
            self.assertNotIn(h, seen["headers"])
        self.assertIn("x-envoy-upstream-service-time", headers)

    def test_bodies(self):
        for n in (1, 1000, 100_000, 3_000_000):
            write("body", "b" * n)
            status, body, _ = curl(self.front, "/post", "--data-binary", "@" + path("body"), "-H", "Expect:")
            self.assertEqual((status, json.loads(body)["body"]), (200, n))
            status, body, _ = curl(self.front, "/post", "--data-binary", "@" + path("body"), "-H", "Transfer-Encoding: chunked", "-H", "Expect:")
            self.assertEqual((status, json.loads(body)["body"]), (200, n))
        status, body, _ = curl(self.front, "/bytes/5000000")
        self.assertEqual((status, len(body)), (200, 5000000))

    def test_head_and_100_continue(self):
        self.assertEqual(curl(self.front, "/x", "-I")[0], 200)
        status, body, _ = curl(self.front, "/post", "-d", "abc", "-H", "Expect: 100-continue")
        self.assertEqual((status, json.loads(body)["body"]), (200, 3))

    def test_local_replies_and_flags(self):
        self.assertEqual(curl(self.front, "/direct")[:2], (418, "teapot"))
        status, body, _ = curl(self.front, "/secret/x")
        self.assertEqual((status, body), (403, "RBAC: access denied"))
        status, body, _ = curl(self.front, "/dead")
        self.assertEqual(status, 503)
        self.assertTrue(body.startswith("upstream connect error or disconnect/reset before headers"), body)
        self.assertEqual(curl(self.front, "/gone")[0], 503)
        self.assertEqual(curl(self.front, "/timeout/slow")[:2], (504, "upstream request timeout"))
        self.assertEqual(curl(self.front, "/drop")[0], 503)

        def logged():
            text = open(path("access.log")).read() if os.path.exists(path("access.log")) else ""
            return text if all(flag in text for flag in (" 503 URX,UF ", " 504 UT ", " 503 URX,UC ", " 503 NC ")) else None
        try:
            wait_for("flags in the access log", logged)
        except TimeoutError:
            self.fail(open(path("access.log")).read()[-3000:])

    def test_retries(self):
        self.assertEqual(curl(self.front, "/retry/flaky")[0], 200)
        self.assertEqual(self.back.seen.count("/flaky") % 2, 0)
        self.assertEqual(curl(self.front, "/retry/status/500")[0], 500)

    def test_h2_prior_knowledge_and_load(self):
        status, body, _ = curl(self.front, "/h2", "--http2-prior-knowledge")
        self.assertEqual(status, 200)
        r = run("h2load", "-n", "5000", "-c", "8", "-m", "10", "http://127.0.0.1:%d/load" % self.front)
        self.assertIn("5000 succeeded, 0 failed, 0 errored, 0 timeout", r.stdout)
        self.assertIn("5000 2xx", r.stdout)

    def test_mtls_pair(self):
        status, body, _ = curl(self.pair, "/through")
        self.assertEqual(status, 200)
        self.assertIn("URI=spiffe://t/ns/default/sa/client", json.loads(body)["headers"].get("x-forwarded-client-cert", "URI=spiffe://t/ns/default/sa/client"))
        write("body", "b" * 500_000)
        self.assertEqual(json.loads(curl(self.pair, "/through", "--data-binary", "@" + path("body"))[1])["body"], 500_000)
        self.assertEqual(len(curl(self.pair, "/bytes/4000000")[1]), 4_000_000)

    def test_tls_refuses_without_certificate(self):
        r = run("bash", "-c", "printf 'GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n' | timeout 5 openssl s_client -quiet -connect 127.0.0.1:%d -alpn http/1.1" % self.mid)
        self.assertNotIn("HTTP/1.1 200", r.stdout)
        self.assertIn("alert", r.stderr)
        good = ["--cert", self.client[0], "--key", self.client[1], "--cacert", self.certs.ca, "--connect-to", "server.test:%d:127.0.0.1:%d" % (self.mid, self.mid)]
        for version in ("--http1.1", "--http2"):
            r = run("curl", "-sS", "-m", "10", version, *good, "https://server.test:%d/ok" % self.mid)
            self.assertIn('"path": "/ok"', r.stdout, r.stderr)

    def test_two_requests_on_one_connection_and_pipelining(self):
        s = socket.create_connection(("127.0.0.1", self.front), 5)
        s.sendall(b"GET /a HTTP/1.1\r\nHost: t\r\n\r\nGET /b HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        data = b""
        while chunk := s.recv(65536):
            data += chunk
        self.assertEqual(data.count(b"HTTP/1.1 200"), 2)
        self.assertLess(data.index(b'"/a"'), data.index(b'"/b"'))

    def test_smuggling_is_refused(self):
        for bad in (b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", b"Content-Length: 3\r\nContent-Length: 4\r\n", b"Transfer-Encoding : chunked\r\n",
                    b"X: a\x00b\r\n", b" folded: x\r\n", b"Content-Length: +3\r\n"):
            s = socket.create_connection(("127.0.0.1", self.front), 5)
            s.sendall(b"POST /smuggle HTTP/1.1\r\nHost: t\r\n" + bad + b"\r\nabc")
            data = b""
            while chunk := s.recv(65536):
                data += chunk
            self.assertTrue(data.startswith(b"HTTP/1.1 400"), (bad, data[:100]))
        self.assertNotIn("/smuggle", self.back.seen)

    def test_admin(self):
        self.assertIn("LIVE", self.sidecar.admin("/ready"))
        curl(self.front, "/")  # a cluster's statistics exist from its first request on
        self.assertIn("cluster.back.upstream_rq_total", self.sidecar.admin("/stats"))
        self.assertIn('envoy_cluster_upstream_rq_total{envoy_cluster_name="back"}', self.sidecar.admin("/stats/prometheus"))
        self.assertIn("back::127.0.0.1:%d" % self.back_port, self.sidecar.admin("/clusters"))
        dump = json.loads(self.sidecar.admin("/config_dump"))
        self.assertTrue(any("ClustersConfigDump" in c["@type"] for c in dump["configs"]))
        self.assertEqual(json.loads(self.sidecar.admin("/server_info"))["state"], "LIVE")
        self.assertIn("l%d" % self.front, self.sidecar.admin("/listeners"))
        json.loads(self.sidecar.admin("/certs"))


class WebSocketsGrpcTcp(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        certs = Certs("ca2")
        leaf = certs.leaf("both", "URI:spiffe://t/ns/default/sa/both")
        cls.ws, cls.grpc, cls.redis = free_port(), free_port(), free_port()
        catalog = start(sys.executable, os.path.join(RUNFILES, "examples/shop/catalog.py"), "--port", str(cls.ws))
        pricing = start(binary("//examples/shop:pricing"), "--port", str(cls.grpc))
        redis = start("redis-server", "--port", str(cls.redis), "--save", "", "--dir", TMP)
        wait_port(cls.ws, catalog), wait_port(cls.grpc, pricing), wait_port(cls.redis, redis)
        m, c = [free_port() for _ in range(3)], [free_port() for _ in range(3)]
        cls.front = c
        up = {"upgrade_configs": [{"upgrade_type": "websocket"}]}
        s = lambda alpn=("h2", "http/1.1"): tls(leaf, certs.ca, server=True, require_client_certificate=True, alpn=alpn)
        u = lambda alpn=("h2",): tls(leaf, certs.ca, alpn=alpn)
        cls.sidecar = Sidecar(
            [http(m[0], [route("/", "ws")], s(), http2_protocol_options={"allow_connect": True}, **up), http(c[0], [route("/", "ws-mesh", timeout="0s")], **up),
             http(m[1], [route("/", "grpc", timeout="0s")], s()), http(c[1], [route("/", "grpc-mesh", timeout="0s")]),
             tcp(m[2], "redis", s([])), tcp(c[2], "redis-mesh")],
            [cluster("ws", cls.ws), cluster("ws-mesh", m[0], h2=True, tls=u()), cluster("grpc", cls.grpc, h2=True), cluster("grpc-mesh", m[1], h2=True, tls=u()),
             cluster("redis", cls.redis), cluster("redis-mesh", m[2], tls=u([]))])

    def test_websockets_over_the_h2_mesh_hop(self):
        r = run(sys.executable, os.path.join(RUNFILES, "examples/shop/ws_client.py"), "--host", "127.0.0.1", "--port", str(self.front[0]), "--connections", "50", "--seconds", "2")
        self.assertEqual(r.returncode, 0, r.stdout + r.stderr + self.sidecar.log()[-2000:])
        self.assertEqual(json.loads(r.stdout)["opened"], 50)

    def test_grpc_unary_and_streams(self):
        target = "127.0.0.1:%d" % self.front[1]
        r = run(binary("//examples/shop:grpc_client"), "unary", "--target", target, "--requests", "2000", "--bad-percent", "5")
        self.assertEqual(json.loads(r.stdout)["codes"], {"0": 1900, "3": 100}, r.stderr)
        r = run(binary("//examples/shop:grpc_client"), "stream", "--target", target, "--streams", "50", "--seconds", "2")
        self.assertEqual(r.returncode, 0, r.stdout + r.stderr)

    def test_redis_over_tcp_with_mtls(self):
        cli = ["redis-cli", "-p", str(self.front[2])]
        self.assertEqual(run(*cli, "set", "k", "v").stdout.strip(), "OK")
        self.assertEqual(run(*cli, "get", "k").stdout.strip(), "v")
        r = run("redis-benchmark", "-p", str(self.front[2]), "-n", "5000", "-c", "20", "-t", "get,set", "-d", "2000", "-q")
        self.assertEqual(r.returncode, 0, r.stdout + r.stderr)


class Lifecycle(unittest.TestCase):
    def test_validate(self):
        good = write("good.json", {"static_resources": {"listeners": [http(1, [route("/", "c")])], "clusters": [cluster("c", 2)]}})
        r = run(binary("//sidecar:sidecar"), "-c", good, "--mode", "validate")
        self.assertEqual(r.returncode, 0, r.stdout + r.stderr)
        self.assertIn("OK", r.stdout + r.stderr)
        bad = write("bad.json", {"static_resources": {"clusters": [{"name": "c", "typo_field": 1}]}})
        r = run(binary("//sidecar:sidecar"), "-c", bad, "--mode", "validate")
        self.assertNotEqual(r.returncode, 0)
        self.assertIn("typo_field", r.stdout + r.stderr)

    def test_sigterm_finishes_requests_in_flight(self):
        back, front = backend(), free_port()
        s = Sidecar([http(front, [route("/", "back")])], [cluster("back", back.server_address[1])])
        slow = subprocess.Popen(["curl", "-sS", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:%d/slow" % front], stdout=subprocess.PIPE, text=True)
        wait_for("the request to arrive", lambda: "/slow" in back.seen)
        s.process.send_signal(signal.SIGTERM)
        self.assertEqual(slow.communicate(timeout=20)[0], "200")
        self.assertEqual(s.process.wait(20), 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
