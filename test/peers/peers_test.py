"""The sidecar between real peers: curl, nghttp, h2load, OpenSSL, grpc++, Redis, and questions as a resolver sends them.

Each test starts the sidecar from an Envoy bootstrap with port 0 everywhere; what is missing on the machine is a named
skip. Certificates are made by the openssl program, so nothing of ours vouches for ours.
"""

import base64
import hashlib
import http.server
import json
import os
import random
import shutil
import signal
import socket
import socketserver
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import xml.sax.saxutils as saxutils

# peers_test.py SIDECAR [PRICING GRPC_CLIENT] [TEST...]
SIDECAR = os.path.abspath(sys.argv[1])
GRPC = [os.path.abspath(p) for p in sys.argv[2:4]] if len(sys.argv) > 3 and os.path.exists(sys.argv[2]) else None
DIR = tempfile.mkdtemp(prefix="weft-peers-")
CERTS = {}


def need(*programs):
    for p in programs:
        if not shutil.which(p):
            raise unittest.SkipTest(p + " is not installed")


def run(*argv, stdin=b"", timeout=90):
    p = subprocess.run(argv, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout)
    return p.returncode, p.stdout.decode("utf-8", "replace")


def openssl(*argv):
    p = subprocess.run(("openssl",) + argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if p.returncode:
        raise RuntimeError(p.stdout.decode())


def ca(name):
    key, crt = (os.path.join(DIR, name + s) for s in (".key", ".crt"))
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", crt,
            "-days", "2", "-subj", "/CN=" + name, "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    return key, crt


def leaf(name, san, issuer):
    key, csr, crt, ext = (os.path.join(DIR, name + s) for s in (".key", ".csr", ".crt", ".ext"))
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", csr, "-subj", "/")
    with open(ext, "w") as f:
        f.write("basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
                "extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName=critical,%s\n" % san)
    openssl("x509", "-req", "-in", csr, "-CA", issuer[1], "-CAkey", issuer[0], "-CAcreateserial", "-days", "1",
            "-extfile", ext, "-out", crt)
    return key, crt


def free_port():
    """For programs that cannot choose one: free for TCP and UDP, below the range that connections are given theirs from."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            try:
                udp.bind(("127.0.0.1", port))
                tcp.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass


class App(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = bytes(i * 7 & 255 for i in range(1000)) * 1000 if self.path == "/big" else b"hello from " + self.path.encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        for name in ("x-forwarded-client-cert", "x-request-id"):
            if self.headers[name]:
                self.send_header("seen-" + name, self.headers[name])
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        digest = hashlib.sha256()
        if self.headers.get("transfer-encoding") == "chunked":
            while True:
                n = int(self.rfile.readline(), 16)
                digest.update(self.rfile.read(n))
                self.rfile.readline()
                if n == 0:
                    break
        else:
            digest.update(self.rfile.read(int(self.headers["content-length"])))
        body = digest.hexdigest().encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 128


def start_app():
    server = Server(("127.0.0.1", 0), App)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def address(port, ip="127.0.0.1", protocol=None):
    a = {"address": ip, "port_value": port}
    if protocol:
        a["protocol"] = protocol
    return {"socket_address": a}


def cluster(name, port, **extra):
    c = {"name": name, "connect_timeout": "10s", "type": "STATIC", "load_assignment": {
        "cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}]}}
    c.update(extra)
    return c


EXT = "type.googleapis.com/envoy.extensions."


def hcm(target, **extra):
    config = {"@type": EXT + "filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "in",
              "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                  {"match": {"prefix": "/"}, "route": {"cluster": target, "timeout": "60s"}}]}]},
              "http_filters": [{"name": "envoy.filters.http.router",
                                "typed_config": {"@type": EXT + "filters.http.router.v3.Router"}}]}
    config.update(extra)
    return [{"name": "envoy.filters.network.http_connection_manager", "typed_config": config}]


def tcp(target):
    return [{"name": "envoy.filters.network.tcp_proxy", "typed_config": {
        "@type": EXT + "filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "tcp", "cluster": target}}]


def listener(name, filters, **chain):
    chain["filters"] = filters
    return {"name": name, "address": address(0), "filter_chains": [chain]}


def tls_common(own, trusted, sans=None, alpn=None):
    common = {"tls_certificates": [{"certificate_chain": {"filename": own[1]}, "private_key": {"filename": own[0]}}],
              "validation_context": {"trusted_ca": {"filename": trusted[1]}}}
    if sans:
        common["validation_context"]["match_typed_subject_alt_names"] = sans
    if alpn:
        common["alpn_protocols"] = alpn
    return common


def server_tls(common, require=True):
    return {"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": EXT + "transport_sockets.tls.v3.DownstreamTlsContext", "common_tls_context": common,
        "require_client_certificate": require}}


def client_tls(common, sni="server"):
    return {"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": EXT + "transport_sockets.tls.v3.UpstreamTlsContext", "common_tls_context": common, "sni": sni}}


class Sidecar:
    def __init__(self, listeners, clusters):
        self.dir = tempfile.mkdtemp(dir=DIR)
        config = {"node": {"id": "peers", "cluster": "test"}, "admin": {"address": address(0)},
                  "static_resources": {"listeners": listeners, "clusters": clusters}}
        path = os.path.join(self.dir, "bootstrap.json")
        with open(path, "w") as f:
            json.dump(config, f)
        admin = os.path.join(self.dir, "admin")
        self.log = open(os.path.join(self.dir, "log"), "w+")
        self.process = subprocess.Popen([SIDECAR, "-c", path, "--concurrency", "1", "--admin-address-path", admin],
                                        stdout=self.log, stderr=self.log)
        deadline = time.time() + 60
        while True:
            if self.process.poll() is not None or time.time() > deadline:
                self.stop()
                raise RuntimeError("sidecar did not come up:\n" + self.text())
            try:
                with open(admin) as f:
                    self.admin = f.read().strip()
                if self.get("/ready").startswith("LIVE"):
                    break
            except (OSError, ValueError):
                pass
            time.sleep(0.02)
        self.ports = {}
        for line in self.get("/listeners").splitlines():
            name, _, at = line.partition("::")
            if ":" in at:
                self.ports[name] = int(at.rsplit(":", 1)[1])

    def get(self, path):
        import urllib.request
        with urllib.request.urlopen("http://%s%s" % (self.admin, path), timeout=5) as r:
            return r.read().decode()

    def stat(self, name):
        for line in self.get("/stats").splitlines():
            key, _, value = line.partition(": ")
            if key == name:
                return int(value)
        return None

    def text(self):
        self.log.flush()
        with open(self.log.name) as f:
            return f.read()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Http(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.app = start_app()
        cls.s = Sidecar([listener("http", hcm("app"))], [cluster("app", cls.app)])
        cls.url = "http://127.0.0.1:%d" % cls.s.ports["http"]

    @classmethod
    def tearDownClass(cls):
        cls.s.stop()

    def test_curl_http1_reuses_the_connection(self):
        need("curl")
        rc, out = run("curl", "-sS", "-v", "--http1.1", self.url + "/a", self.url + "/b")
        self.assertEqual(rc, 0, out)
        self.assertIn("hello from /a", out)
        self.assertIn("hello from /b", out)
        self.assertIn("Re-using existing connection", out)

    def test_curl_http2_prior_knowledge(self):
        need("curl")
        rc, out = run("curl", "-sS", "--http2-prior-knowledge", "-w", "%{http_version}", self.url + "/x")
        self.assertEqual((rc, out), (0, "hello from /x2"))

    def test_bodies_arrive_whole(self):
        need("curl")
        data = os.urandom(3 << 20)
        path = os.path.join(DIR, "upload")
        with open(path, "wb") as f:
            f.write(data)
        want = hashlib.sha256(data).hexdigest()
        for version in ("--http1.1", "--http2-prior-knowledge"):
            for extra in ([], ["-H", "Transfer-Encoding: chunked"]):
                rc, out = run("curl", "-sS", version, "--data-binary", "@" + path, *extra, self.url + "/up")
                self.assertEqual((rc, out), (0, want), (version, extra))
            down = os.path.join(DIR, "down")
            run("curl", "-sS", version, "-o", down, self.url + "/big")
            with open(down, "rb") as f:
                self.assertEqual(f.read(), bytes(i * 7 & 255 for i in range(1000)) * 1000)

    def test_expect_100_continue(self):
        need("curl")
        rc, out = run("curl", "-sS", "-H", "Expect: 100-continue", "--data-binary", "abc", self.url + "/up")
        self.assertEqual((rc, out), (0, hashlib.sha256(b"abc").hexdigest()))

    def test_nghttp(self):
        need("nghttp")
        rc, out = run("nghttp", "-v", "--no-dep", self.url + "/n")
        self.assertEqual(rc, 0, out)
        self.assertIn(":status: 200", out)
        self.assertIn("hello from /n", out)

    def test_h2load_counts_agree(self):
        need("h2load")
        before = self.s.stat("cluster.app.upstream_rq_total")
        for extra in ([], ["--h1"]):
            rc, out = run("h2load", "-n", "2000", "-c", "8", "-m", "4", *extra, self.url + "/l", timeout=120)
            self.assertEqual(rc, 0, out)
            self.assertIn("2000 succeeded, 0 failed, 0 errored", out)
        self.assertEqual(self.s.stat("cluster.app.upstream_rq_total") - before, 4000)


class DownstreamTls(unittest.TestCase):
    """A listener that wants a SPIFFE identity, against OpenSSL's client."""

    @classmethod
    def setUpClass(cls):
        app = start_app()
        sans = [{"san_type": "URI", "matcher": {"prefix": "spiffe://mesh/ns/default/"}}]
        tls = server_tls(tls_common(CERTS["server"], CERTS["ca"], sans, ["h2", "http/1.1"]))
        details = {"forward_client_cert_details": "SANITIZE_SET", "set_current_client_cert_details": {"uri": True}}
        cls.s = Sidecar([listener("tls", hcm("app", **details), transport_socket=tls)], [cluster("app", app)])
        cls.at = "127.0.0.1:%d" % cls.s.ports["tls"]

    @classmethod
    def tearDownClass(cls):
        cls.s.stop()

    def client(self, who, *extra, stdin=b"GET /s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"):
        argv = ["openssl", "s_client", "-connect", self.at, "-ign_eof", "-CAfile", CERTS["ca"][1], "-verify_return_error"]
        if who:
            argv += ["-cert", CERTS[who][1], "-key", CERTS[who][0]]
        return run(*argv, *extra, stdin=stdin)[1]

    def test_mutual_tls_13_and_the_identity_is_forwarded(self):
        out = self.client("client")
        self.assertIn("hello from /s", out)
        self.assertIn("TLSv1.3", out)
        self.assertIn("URI=spiffe://mesh/ns/default/sa/web", out)

    def test_tls_12(self):
        out = self.client("client", "-tls1_2")
        self.assertIn("hello from /s", out)
        self.assertIn("Protocol  : TLSv1.2", out)

    def test_old_versions_and_weak_ciphers_are_refused(self):
        for extra in (["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], ["-tls1_2", "-cipher", "AES128-SHA:AES128-GCM-SHA256"],
                      ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256"]):
            self.assertNotIn("hello", self.client("client", *extra), extra)

    def test_no_certificate(self):
        def refused():
            return sum(int(x.rsplit(" ", 1)[1]) for x in self.s.get("/stats").splitlines() if ".ssl.fail_verify_no_cert" in x)

        before = refused()
        out = self.client(None)
        self.assertNotIn("hello", out)
        self.assertIn("certificate required", out)
        self.assertEqual(refused(), before + 1)

    def test_foreign_root_and_foreign_name(self):
        out = self.client("foreign")
        self.assertNotIn("hello", out)
        self.assertIn("unknown ca", out)
        out = self.client("outsider")  # our root, but not the namespace the listener admits
        self.assertNotIn("hello", out)
        self.assertIn("alert", out)

    def test_two_identities_in_one_certificate(self):
        self.assertNotIn("hello", self.client("two"))

    def test_renegotiation_is_refused(self):
        p = subprocess.Popen(["openssl", "s_client", "-connect", self.at, "-tls1_2", "-cert", CERTS["client"][1],
                              "-key", CERTS["client"][0]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        p.stdin.write(b"R\n")
        p.stdin.flush()
        out = p.stdout.read().decode("utf-8", "replace")  # the sidecar ends it: the input stays open
        p.stdin.close()
        self.assertIn("RENEGOTIATING", out)
        self.assertIn("alert no renegotiation", out.split("RENEGOTIATING")[1])
        self.assertNotEqual(p.wait(), 0)

    def test_plaintext_gets_no_application_byte(self):
        for hello in (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x16\x03\x01\x00\x05garba", b"\0" * 100):
            with socket.create_connection(("127.0.0.1", self.s.ports["tls"]), timeout=10) as c:
                c.sendall(hello)
                c.shutdown(socket.SHUT_WR)
                got = b""
                try:
                    while True:
                        piece = c.recv(4096)
                        if not piece:
                            break
                        got += piece
                except ConnectionResetError:
                    pass
                self.assertNotIn(b"HTTP", got)
                self.assertLessEqual(len(got), 7)  # an alert at most

    def test_one_byte_at_a_time(self):
        proxy = Trickle(self.s.ports["tls"])
        at, self.__class__.at = self.at, "127.0.0.1:%d" % proxy.port
        try:
            self.assertIn("hello from /s", self.client("client"))
        finally:
            self.__class__.at = at

    def test_resumption(self):
        session = os.path.join(DIR, "session")
        self.client("client", "-sess_out", session)
        out = self.client("client", "-sess_in", session)
        self.assertIn("hello from /s", out)
        self.assertIn("Reused, TLSv1.3", out)
        self.assertIn("URI=spiffe://mesh/ns/default/sa/web", out)  # the identity is that of the first handshake

    def test_curl_over_tls_chooses_h2(self):
        need("curl")
        rc, out = run("curl", "-sS", "-k", "--cert", CERTS["client"][1], "--key", CERTS["client"][0], "-w", "%{http_version}",
                      "https://%s/c" % self.at)
        self.assertEqual((rc, out), (0, "hello from /c2"))


class Trickle:
    """Passes a connection on, byte by byte towards the server."""

    def __init__(self, target):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.target = target
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        a, _ = self.listener.accept()
        b = socket.create_connection(("127.0.0.1", self.target))
        b.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def back():
            while True:
                piece = b.recv(65536)
                if not piece:
                    break
                a.sendall(piece)
            a.shutdown(socket.SHUT_WR)

        threading.Thread(target=back, daemon=True).start()
        while True:
            piece = a.recv(65536)
            if not piece:
                break
            for i in range(len(piece)):
                b.sendall(piece[i:i + 1])
        b.shutdown(socket.SHUT_WR)


class UpstreamTls(unittest.TestCase):
    """Our client side against OpenSSL's server."""

    def setUp(self):
        self.cleanup = []

    def tearDown(self):
        for f in reversed(self.cleanup):
            f()

    def server(self, who, *extra):
        port = free_port()
        argv = ["openssl", "s_server", "-accept", "127.0.0.1:%d" % port, "-www", "-cert", CERTS[who][1], "-key", CERTS[who][0],
                "-CAfile", CERTS["ca"][1]] + list(extra)
        p = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.cleanup.append(lambda: (p.kill(), p.wait()))
        deadline = time.time() + 10
        while time.time() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return port
            except OSError:
                time.sleep(0.02)
        self.fail("openssl s_server did not start")

    def ask(self, port, expected="spiffe://mesh/ns/default/sa/cart"):
        need("curl")
        sans = [{"san_type": "URI", "matcher": {"exact": expected}}]
        tls = client_tls(tls_common(CERTS["client"], CERTS["ca"], sans))
        s = Sidecar([listener("http", hcm("up"))], [cluster("up", port, transport_socket=tls)])
        self.cleanup.append(s.stop)
        return run("curl", "-sS", "-i", "http://127.0.0.1:%d/" % s.ports["http"])[1]

    def test_mutual(self):
        out = self.ask(self.server("server", "-Verify", "1", "-verify_return_error"))
        self.assertIn("200", out.splitlines()[0])
        self.assertIn("TLSv1.3", out)

    def test_server_with_only_tls_12(self):
        self.assertIn("200", self.ask(self.server("server", "-tls1_2")).splitlines()[0])

    def test_wrong_identity_is_503(self):
        out = self.ask(self.server("server"), expected="spiffe://mesh/ns/default/sa/other")
        self.assertIn("503", out.splitlines()[0])

    def test_foreign_root_is_503(self):
        self.assertIn("503", self.ask(self.server("foreign")).splitlines()[0])


class Tcp(unittest.TestCase):
    def test_redis_through_two_sidecars_with_mutual_tls(self):
        need("redis-server", "redis-cli")
        port = free_port()
        redis = subprocess.Popen(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", DIR],
                                 stdout=subprocess.DEVNULL)
        stops = [lambda: (redis.kill(), redis.wait())]
        try:
            inner = Sidecar([listener("in", tcp("redis"), transport_socket=server_tls(tls_common(CERTS["server"], CERTS["ca"])))],
                            [cluster("redis", port)])
            stops.append(inner.stop)
            sans = [{"san_type": "URI", "matcher": {"exact": "spiffe://mesh/ns/default/sa/cart"}}]
            outer = Sidecar([listener("out", tcp("far"))],
                            [cluster("far", inner.ports["in"], transport_socket=client_tls(tls_common(CERTS["client"], CERTS["ca"], sans)))])
            stops.append(outer.stop)
            cli = ["redis-cli", "-h", "127.0.0.1", "-p", str(outer.ports["out"])]
            deadline = time.time() + 10
            while run(*cli, "ping")[1].strip() != "PONG" and time.time() < deadline:
                time.sleep(0.05)
            value = os.urandom(1 << 20).hex().encode()
            self.assertEqual(run(*cli, "-x", "set", "k", stdin=value)[1].strip(), "OK")
            self.assertEqual(run(*cli, "get", "k")[1].strip().encode(), value)
            rc, out = run(*cli, "--pipe", stdin=b"".join(b"INCR n\r\n" for _ in range(20000)), timeout=60)
            self.assertIn("errors: 0, replies: 20000", out)
            self.assertEqual(run(*cli, "get", "n")[1].strip(), "20000")
        finally:
            for stop in reversed(stops):
                stop()


def read_exactly(sock, n):
    out = b""
    while len(out) < n:
        piece = sock.recv(n - len(out))
        if not piece:
            raise AssertionError("closed after %r" % out)
        out += piece
    return out


class Serve:
    """A raw TCP server: `talk` gets each connection."""

    def __init__(self, talk):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]

        def accept():
            while True:
                try:
                    c, _ = self.listener.accept()
                except OSError:
                    return
                threading.Thread(target=self.one, args=(talk, c), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()

    @staticmethod
    def one(talk, c):
        with c:
            try:
                talk(c)
            except OSError:
                pass

    def close(self):
        self.listener.close()


class Pair(unittest.TestCase):
    """Application - sidecar - mutual TLS, HTTP/2 - sidecar - application."""

    @classmethod
    def setUpClass(cls):
        cls.stops = []

        def talk(c):  # an HTTP server that upgrades and then echoes
            head = b""
            while b"\r\n\r\n" not in head:
                head += read_exactly(c, 1)
            if b"upgrade: websocket" not in head.lower():
                body = b"plain"
                c.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
                return
            key = next(x.split(b":")[1].strip() for x in head.split(b"\r\n") if x.lower().startswith(b"sec-websocket-key:"))
            accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
            c.sendall(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
                      b"sec-websocket-accept: " + accept + b"\r\n\r\n")
            while True:
                piece = c.recv(65536)
                if not piece:
                    return
                c.sendall(piece)

        app = Serve(talk)
        cls.stops.append(app.close)
        ws = {"upgrade_configs": [{"upgrade_type": "websocket"}]}
        inner_hcm = hcm("app", http2_protocol_options={"allow_connect": True}, **ws)
        inner = Sidecar([listener("in", inner_hcm, transport_socket=server_tls(tls_common(CERTS["server"], CERTS["ca"], alpn=["h2"])))],
                        [cluster("app", app.port)])
        cls.stops.append(inner.stop)
        sans = [{"san_type": "URI", "matcher": {"exact": "spiffe://mesh/ns/default/sa/cart"}}]
        far = cluster("far", inner.ports["in"], transport_socket=client_tls(tls_common(CERTS["client"], CERTS["ca"], sans, ["h2"])))
        options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        far["typed_extension_protocol_options"] = {options: {
            "@type": "type.googleapis.com/" + options,
            "explicit_http_config": {"http2_protocol_options": {"allow_connect": True}}}}
        outer = Sidecar([listener("out", hcm("far", **ws))], [far])
        cls.stops.append(outer.stop)
        cls.port = outer.ports["out"]

    @classmethod
    def tearDownClass(cls):
        for stop in reversed(cls.stops):
            stop()

    def test_plain_request(self):
        need("curl")
        self.assertEqual(run("curl", "-sS", "http://127.0.0.1:%d/" % self.port), (0, "plain"))

    def test_websockets_cross_both_sidecars(self):
        opened = []
        for i in range(20):
            c = socket.create_connection(("127.0.0.1", self.port), timeout=20)
            c.sendall(b"GET /chat HTTP/1.1\r\nHost: cart\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                      b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
            head = b""
            while b"\r\n\r\n" not in head:
                head += read_exactly(c, 1)
            self.assertTrue(head.startswith(b"HTTP/1.1 101"), head)
            self.assertIn(b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", head)  # of the client's own key
            opened.append(c)
        for round_ in range(3):
            for i, c in enumerate(opened):
                message = b"\x82\x7e" + struct.pack(">H", 30000) + bytes([i, round_]) * 15000
                c.sendall(message)
                self.assertEqual(read_exactly(c, len(message)), message)
        for c in opened:
            c.shutdown(socket.SHUT_WR)
            self.assertEqual(c.recv(1), b"")
            c.close()


class Grpc(unittest.TestCase):
    """grpc++ on both ends: the shop's pricing service and its counting client, two sidecars between them."""

    def test_unary_statuses_and_streams(self):
        if not GRPC:
            raise unittest.SkipTest("the grpc++ programs were not given")
        port = free_port()
        app = subprocess.Popen([GRPC[0], "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stops = [lambda: (app.kill(), app.wait())]
        try:
            options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
            h2 = {"typed_extension_protocol_options": {options: {"@type": "type.googleapis.com/" + options,
                                                                 "explicit_http_config": {"http2_protocol_options": {}}}}}
            inner = Sidecar([listener("in", hcm("app"), transport_socket=server_tls(tls_common(CERTS["server"], CERTS["ca"], alpn=["h2"])))],
                            [cluster("app", port, **h2)])
            stops.append(inner.stop)
            sans = [{"san_type": "URI", "matcher": {"exact": "spiffe://mesh/ns/default/sa/cart"}}]
            tls = client_tls(tls_common(CERTS["client"], CERTS["ca"], sans, ["h2"]))
            outer = Sidecar([listener("out", hcm("far"))], [cluster("far", inner.ports["in"], transport_socket=tls, **h2)])
            stops.append(outer.stop)
            target = "127.0.0.1:%d" % outer.ports["out"]
            rc, out = run(GRPC[1], "unary", "--target", target, "--requests", "2000", "--threads", "8", "--bad-percent", "10", timeout=60)
            self.assertEqual(json.loads(out), {"requests": 2000, "codes": {"0": 1800, "3": 200}})
            rc, out = run(GRPC[1], "stream", "--target", target, "--streams", "30", "--seconds", "3", timeout=60)
            result = json.loads(out)
            self.assertEqual(result["broken"], 0, out)
            self.assertGreater(result["messages"], 30 * 5, out)
        finally:
            for stop in reversed(stops):
                stop()


class Sniffing(unittest.TestCase):
    """One listener, permissive: mutual TLS, plaintext HTTP and a protocol whose server speaks first."""

    def test_server_first_http_and_tls_share_a_port(self):
        def talk(c):
            c.sendall(b"220 ready\r\n")
            c.sendall(b"you said " + c.recv(100))

        app = Serve(talk)
        inspectors = [{"name": "envoy.filters.listener." + n, "typed_config": {"@type": EXT + "filters.listener.%s.v3.%s" % (n, t)}}
                      for n, t in (("tls_inspector", "TlsInspector"), ("http_inspector", "HttpInspector"))]
        secure = {"filter_chain_match": {"transport_protocol": "tls"}, "filters": tcp("app"),
                  "transport_socket": server_tls(tls_common(CERTS["server"], CERTS["ca"]))}
        plain = {"filter_chain_match": {"transport_protocol": "raw_buffer"}, "filters": tcp("app")}
        s = Sidecar([{"name": "in", "address": address(0), "listener_filters": inspectors, "filter_chains": [secure, plain]}],
                    [cluster("app", app.port)])
        try:
            started = time.time()
            with socket.create_connection(("127.0.0.1", s.ports["in"]), timeout=10) as c:
                self.assertEqual(read_exactly(c, 11), b"220 ready\r\n")  # we have said nothing yet
                waited = time.time() - started
                c.sendall(b"HELO\r\n")
                self.assertEqual(read_exactly(c, 15), b"you said HELO\r\n")
            self.assertLess(waited, 5)
            with socket.create_connection(("127.0.0.1", s.ports["in"]), timeout=10) as c:
                started = time.time()
                c.sendall(b"HELO\r\n")  # not TLS, not HTTP: decided at once
                self.assertEqual(read_exactly(c, 26), b"220 ready\r\nyou said HELO\r\n")
                self.assertLess(time.time() - started, 5)
            rc, out = run("openssl", "s_client", "-connect", "127.0.0.1:%d" % s.ports["in"], "-ign_eof", "-cert", CERTS["client"][1],
                          "-key", CERTS["client"][0], stdin=b"HELO\r\n")
            self.assertIn("220 ready", out)
            self.assertIn("you said HELO", out)
        finally:
            s.stop()
            app.close()


class Dns(unittest.TestCase):
    def test_inline_table_over_udp(self):
        names = [{"name": "cart.default.mesh", "endpoint": {"address_list": {"address": ["240.64.0.1"]}}, "answer_ttl": "30s"}]
        config = {"@type": EXT + "filters.udp.dns_filter.v3.DnsFilterConfig", "stat_prefix": "mesh",
                  "server_config": {"inline_dns_table": {"virtual_domains": names}}}
        port = free_port()
        s = Sidecar([{"name": "dns", "address": address(port, protocol="UDP"),
                      "listener_filters": [{"name": "envoy.filters.udp.dns_filter", "typed_config": config}]}], [])
        try:
            def ask(name, kind):
                q = struct.pack(">HHHHHH", 4711, 0x100, 1, 0, 0, 0)
                q += b"".join(bytes([len(x)]) + x for x in name.encode().split(b".")) + b"\0" + struct.pack(">HH", kind, 1)
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as c:
                    c.settimeout(5)
                    c.connect(("127.0.0.1", port))
                    c.send(q)
                    a = c.recv(4096)
                self.assertEqual(a[:2], q[:2])
                return a[3] & 15, struct.unpack(">H", a[6:8])[0], a
            code, count, raw = ask("Cart.Default.mesh", 1)
            self.assertEqual((code, count, raw[-4:]), (0, 1, bytes([240, 64, 0, 1])))
            self.assertEqual(ask("cart.default.mesh", 28)[:2], (0, 0))
            self.assertEqual(ask("nosuch.mesh", 1)[0], 3)
            with socket.create_connection(("127.0.0.1", port), timeout=5) as c:  # TCP on the same port
                q = struct.pack(">HHHHHH", 1, 0x100, 1, 0, 0, 0) + b"\4cart\7default\4mesh\0\0\1\0\1"
                c.sendall(struct.pack(">H", len(q)) + q)
                a = read_exactly(c, struct.unpack(">H", read_exactly(c, 2))[0])
                self.assertEqual(a[-4:], bytes([240, 64, 0, 1]))
        finally:
            s.stop()


class Report(unittest.TextTestResult):
    """Also collects one element a case for Bazel's test.xml."""

    def __init__(self, *args):
        super().__init__(*args)
        self.cases = []

    def case(self, test, kind="", text=""):
        name = saxutils.quoteattr(test._testMethodName if hasattr(test, "_testMethodName") else str(test))
        inner = "<%s message=%s/>" % (kind, saxutils.quoteattr(str(text)[-4000:])) if kind else ""
        self.cases.append('<testcase classname=%s name=%s time="0">%s</testcase>' %
                          (saxutils.quoteattr(type(test).__name__), name, inner))

    def addSuccess(self, test):
        super().addSuccess(test)
        self.case(test)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.case(test, "failure", self._exc_info_to_string(err, test))

    def addError(self, test, err):
        super().addError(test, err)
        self.case(test, "error", self._exc_info_to_string(err, test))

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.case(test, "skipped", reason)


def main():
    root, other = ca("root"), ca("other")
    CERTS["ca"] = root
    CERTS["server"] = leaf("server", "URI:spiffe://mesh/ns/default/sa/cart", root)
    CERTS["client"] = leaf("client", "URI:spiffe://mesh/ns/default/sa/web", root)
    CERTS["outsider"] = leaf("outsider", "URI:spiffe://mesh/ns/prod/sa/web", root)
    CERTS["two"] = leaf("two", "URI:spiffe://mesh/ns/default/sa/web,URI:spiffe://mesh/ns/default/sa/admin", root)
    CERTS["foreign"] = leaf("foreign", "URI:spiffe://mesh/ns/default/sa/web", other)
    names = sys.argv[4:] if GRPC else sys.argv[2:]
    loader = unittest.defaultTestLoader
    suite = loader.loadTestsFromNames(names, sys.modules[__name__]) if names else loader.loadTestsFromModule(sys.modules[__name__])
    result = unittest.TextTestRunner(verbosity=2, resultclass=Report).run(suite)
    path = os.environ.get("XML_OUTPUT_FILE")
    if path:
        with open(path, "w") as f:
            f.write('<?xml version="1.0"?><testsuites><testsuite name="peers" tests="%d">%s</testsuite></testsuites>' %
                    (len(result.cases), "".join(result.cases)))
    shutil.rmtree(DIR, ignore_errors=True)
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
