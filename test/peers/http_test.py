"""The sidecar between programs that speak HTTP: curl, nghttp, h2load; and, through two sidecars with mutual TLS and HTTP/2
between them, curl, WebSockets and grpc++."""
import base64, hashlib, json, os, re, socket, struct, subprocess, sys, threading, time, unittest

from cases import *
from envoy_config import *
from loopback import *
import wire


def curl(*argv):
    """Its output; anything but success fails the test."""
    need("curl")
    r = run("curl", "-sS", "-m", "60", *argv, stderr=subprocess.STDOUT)
    assert r.returncode == 0, r.stdout
    return r.stdout


class Http(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.app = Backend("hello")
        cls.s = Sidecar(static([listener("l", hcm([route("/", "app", timeout="60s")]))], [cluster("app", cls.app.port)]))
        cls.url = "http://127.0.0.1:%d" % cls.s.port("l")

    def test_curl_http1_reuses_the_connection(self):
        out = curl("-v", "--http1.1", self.url + "/a", self.url + "/b")
        self.assertEqual(out.count("hello:"), 2)
        self.assertEqual([r.path for r in self.app.requests[-2:]], ["/a", "/b"])
        self.assertIn("Re-using existing connection", out)

    def test_curl_http2_prior_knowledge(self):
        self.assertEqual(curl("--http2-prior-knowledge", "-w", " %{http_version} %{http_code}", self.url + "/x"), "hello: 2 200")

    def test_bodies_arrive_whole(self):
        for version in ("--http1.1", "--http2-prior-knowledge"):
            for size in (1, 1000, 100_000, 3 << 20):
                with open(path("up"), "wb") as f:
                    f.write(data := os.urandom(size))
                for extra in ([], ["-H", "Expect:"], ["-H", "Transfer-Encoding: chunked"], ["-H", "Transfer-Encoding: chunked", "-H", "Expect:"]):
                    curl(version, "-f", "--data-binary", "@" + path("up"), *extra, "-o", path("echo"), self.url + "/up")
                    self.assertEqual(self.app.requests[-1].body, data, (version, size, extra))
                    with open(path("echo"), "rb") as f:
                        self.assertEqual(f.read(), b"hello:" + data, (version, size, extra))
            curl(version, "-f", "-o", path("down"), self.url + "/bytes/5000000")
            with open(path("down"), "rb") as f:
                self.assertEqual(f.read(), pattern(5_000_000), version)

    def test_expect_100_continue(self):
        self.assertEqual(curl("-w", " %{http_code}", "-H", "Expect: 100-continue", "--data-binary", "abc", self.url + "/up"), "hello:abc 200")

    def test_nghttp(self):
        need("nghttp")
        r = run("nghttp", "-v", "--no-dep", self.url + "/n")
        self.assertEqual(r.returncode, 0, r.stdout + r.stderr)
        self.assertIn(":status: 200", r.stdout)
        self.assertIn("hello:", r.stdout)
        self.assertEqual(self.app.requests[-1].path, "/n")

    def test_h2load_counts_agree(self):
        need("h2load")
        before = self.s.stat("cluster.app.upstream_rq_total")
        for extra in ([], ["--h1"]):
            r = run("h2load", "-n", "5000", "-c", "8", "-m", "10", *extra, self.url + "/l", timeout=120)
            self.assertEqual(r.returncode, 0, r.stdout)
            self.assertIn("5000 succeeded, 0 failed, 0 errored, 0 timeout", r.stdout)
            self.assertIn("5000 2xx", r.stdout)
        self.assertEqual(self.s.stat("cluster.app.upstream_rq_total") - before, 10000)


    def test_wrk_finds_no_error(self):
        need("wrk", "nginx")
        port = free_port()
        conf = write("nginx.conf", """
daemon off; master_process off; error_log stderr; pid %s/nginx.pid; %s
events {}
http {
  access_log off; keepalive_requests 1000000;
  client_body_temp_path %s; proxy_temp_path %s; fastcgi_temp_path %s; uwsgi_temp_path %s; scgi_temp_path %s;
  server { listen 127.0.0.1:%d; location / { return 200 hello; } }
}
""" % (TMP, "user root;" if os.getuid() == 0 else "", TMP, TMP, TMP, TMP, TMP, port))
        wait_port(port, start("nginx", "-c", conf, "-p", TMP, "-e", "stderr"))
        s = Sidecar(static([listener("l", hcm([route("/", "app", timeout="60s")]))], [cluster("app", port)]))
        r = run("wrk", "-t1", "-c32", "-d3s", "http://127.0.0.1:%d/" % s.port("l"))
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertNotRegex(r.stdout, "Non-2xx|Socket errors")
        done = int(re.search(r"(\d+) requests in", r.stdout).group(1))
        self.assertGreater(done, 100)
        self.assertGreaterEqual(s.stat("http.in.downstream_rq_2xx"), done)
        self.assertEqual(s.stat("cluster.app.upstream_cx_connect_fail"), 0)


def upgrade_and_echo(sock, _):
    """An HTTP/1.1 server that answers "plain", or upgrades to a WebSocket and then sends back what it gets."""
    head, rest = wire.read_request(sock)
    if b"upgrade: websocket" not in head.lower():
        return sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nplain")
    key = next(x.split(b":")[1].strip() for x in head.split(b"\r\n") if x.lower().startswith(b"sec-websocket-key:"))
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: " + accept + b"\r\n\r\n" + rest)
    while piece := sock.recv(65536):
        sock.sendall(piece)


def pour(sock, _):
    """An HTTP/1.1 server whose answer has as many bytes as x-size says."""
    head, _ = wire.read_request(sock)
    left, piece = int(re.search(rb"x-size: (\d+)", head).group(1)), bytes(1 << 20)
    sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % left)
    while left > 0:
        left -= sock.send(piece[:left])


def read_proc(pid, name):
    with open("/proc/%d/%s" % (pid, name)) as f:
        return f.read()


class Pair(unittest.TestCase):
    """Application - sidecar - mutual TLS, HTTP/2 - sidecar - application."""

    @classmethod
    def setUpClass(cls):
        certs = Certs()
        server, client = certs.leaf("server", "URI:" + spiffe("cart")), certs.leaf("client", "URI:" + spiffe("web"))
        flood = wire.Backend(pour)
        cls.app, echo, pricing, catalog = Backend("hello"), wire.Backend(upgrade_and_echo), free_port(), free_port()
        start(binary("//examples/shop:pricing"), "--port", str(pricing), env=NOT_JUDGED)
        start(sys.executable, "-B", os.path.join(RUNFILES, "examples/shop/catalog.py"), "--port", str(catalog))
        wait_port(pricing), wait_port(catalog)
        upgrades = {"upgrade_configs": [{"upgrade_type": "websocket"}]}
        identity = {"forward_client_cert_details": "SANITIZE_SET", "set_current_client_cert_details": {"uri": True}}
        routes = [route("/chat", "echo"), route("/flood", "flood", timeout="0s"), route("/ws", "catalog", timeout="0s"), route("/shop.", "pricing", timeout="0s"), route("/", "app")]
        cls.inner = inner = Sidecar(static(
            [listener("l", hcm(routes, http2_protocol_options={"allow_connect": True}, **identity, **upgrades),
                      transport=tls(server, certs.ca, server=True, alpn=["h2"], minimum="TLSv1_3", require_client_certificate=True))],
            [cluster("app", cls.app.port), cluster("flood", flood.port), cluster("echo", echo.port), cluster("catalog", catalog), cluster("pricing", pricing, h2=True)]))
        far = cluster("far", inner.port("l"), h2={"allow_connect": True}, connect_timeout="10s",
                      tls=tls(client, certs.ca, alpn=["h2"], sans=[spiffe("cart")], minimum="TLSv1_3", sni="server"))
        cls.outer = Sidecar(static([listener("l", hcm([route("/", "far", timeout="0s")], **upgrades))], [far]))
        cls.port = cls.outer.port("l")
        cls.url = "http://127.0.0.1:%d" % cls.port

    def test_plain_requests_with_the_callers_identity(self):
        self.assertEqual(curl(self.url + "/chat"), "plain")
        self.assertEqual(curl("-w", " %{http_code}", self.url + "/through"), "hello: 200")
        self.assertIn("URI=" + spiffe("web"), self.app.requests[-1].headers["x-forwarded-client-cert"])
        curl("-f", "--data-binary", "@" + write("body", "b" * 500_000), "-o", path("echo"), self.url + "/through")
        self.assertEqual(len(self.app.requests[-1].body), 500_000)
        self.assertEqual(len(read("echo")), 500_006)
        curl("-f", "-o", path("down"), self.url + "/bytes/4000000")
        with open(path("down"), "rb") as f:
            self.assertEqual(f.read(), pattern(4_000_000))

    def test_websockets_cross_both_sidecars(self):
        opened = []
        for i in range(20):
            c = wire.connect(self.port, 20)
            c.sendall(b"GET /chat HTTP/1.1\r\nHost: cart\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                      b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
            head = b""
            while b"\r\n\r\n" not in head:
                head += wire.read_exactly(c, 1)
            self.assertTrue(head.startswith(b"HTTP/1.1 101"), head)
            self.assertIn(b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", head)  # of the client's own key
            opened.append(c)
        for round_ in range(3):
            for i, c in enumerate(opened):
                message = b"\x82\x7e" + struct.pack(">H", 30000) + bytes([i, round_]) * 15000
                c.sendall(message)
                self.assertEqual(wire.read_exactly(c, len(message)), message)
        for c in opened:
            c.shutdown(socket.SHUT_WR)
            self.assertEqual(c.recv(1), b"")
            c.close()

    def test_ten_thousand_frames_on_one_websocket(self):
        """HTTP/1 - HTTP/2 with mutual TLS - HTTP/1; lengths of all three forms, sent without waiting for the echo."""
        frames = []
        for i in range(10_000):
            n = (i * 7919) % (70_000 if i % 500 == 0 else 3_000 if i % 10 == 0 else 126)
            head = bytes([n]) if n < 126 else b"\x7e" + struct.pack(">H", n) if n < 65536 else b"\x7f" + struct.pack(">Q", n)
            frames.append(b"\x82" + head + i.to_bytes(4, "big") * (n // 4) + b"." * (n % 4))
        everything, got = b"".join(frames), bytearray()
        with wire.connect(self.port, 60) as c:
            c.sendall(b"GET /chat HTTP/1.1\r\nHost: cart\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                      b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
            head = b""
            while b"\r\n\r\n" not in head:
                head += wire.read_exactly(c, 1)
            self.assertTrue(head.startswith(b"HTTP/1.1 101"), head)
            sender = threading.Thread(target=c.sendall, args=(everything,))
            sender.start()
            while len(got) < len(everything) and (piece := c.recv(1 << 20)):
                got += piece
            sender.join()
        self.assertTrue(got == everything, "%d of %d bytes" % (len(got), len(everything)))

    def test_slow_reader_holds_little(self):
        """300 MB through both sidecars, the reader pausing: what either of them holds stays flat."""
        if SANITIZED:
            self.skipTest("a sanitizer's memory says nothing")
        memory = lambda: [int(read_proc(s.process.pid, "statm").split()[1]) * 4 for s in (self.outer, self.inner)]
        size = 300 << 20
        with wire.connect(self.port, 60) as c:
            c.sendall(b"GET /flood HTTP/1.1\r\nHost: a\r\nx-size: %d\r\n\r\n" % size)
            head = b""
            while b"\r\n\r\n" not in head:
                head += wire.read_exactly(c, 1)
            got, first, most, room = 0, None, [0, 0], memoryview(bytearray(1 << 20))
            while got < size:
                n = c.recv_into(room)
                self.assertGreater(n, 0, got)
                got += n
                if got >> 23 != (got - n) >> 23:  # every 8 MB
                    time.sleep(0.01)  # the reader falls behind: all buffers between fill
                    first = first or memory()
                    most = [max(*pair) for pair in zip(most, memory())]
        for held, began in zip(most, first):
            self.assertLess(held, began + 4096, "KiB of RSS, %s at first" % began)

    def test_the_shops_websockets(self):
        r = run(sys.executable, "-B", os.path.join(RUNFILES, "examples/shop/ws_client.py"), "--host", "127.0.0.1", "--port", str(self.port),
                "--connections", "50", "--seconds", "2")
        self.assertEqual(r.returncode, 0, r.stdout + r.stderr)
        self.assertEqual(json.loads(r.stdout)["opened"], 50)

    def test_grpc_statuses_and_streams(self):
        client, target = binary("//examples/shop:grpc_client"), "127.0.0.1:%d" % self.port
        r = run(client, "unary", "--target", target, "--requests", "2000", "--threads", "8", "--bad-percent", "10", env=NOT_JUDGED)
        self.assertEqual(json.loads(r.stdout), {"requests": 2000, "codes": {"0": 1800, "3": 200}}, r.stderr)
        r = run(client, "stream", "--target", target, "--streams", "50", "--seconds", "3", env=NOT_JUDGED)
        self.assertEqual(r.returncode, 0, r.stdout + r.stderr)
        result = json.loads(r.stdout)
        self.assertEqual(result["broken"], 0, r.stdout)
        self.assertGreater(result["messages"], 50 * 5, r.stdout)


if __name__ == "__main__":
    main()
