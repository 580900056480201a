"""What HTTP means, through the built sidecar and over every pair of versions: trailers, interim answers, 100-continue,
pipelining, half-close, early answers, tunnels, and gRPC's streams with their deadlines and cancellations."""
import base64, hashlib, re, socket, threading, time, unittest

from cases import *
from envoy_config import *
from loopback import *
import wire

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class H2:
    """One HTTP/2 connection, either side: frames as they come, per stream."""

    def __init__(self, sock, server):
        self.sock, self.server = sock, server
        self.frames, self.changed, self.closed = [], threading.Condition(), False
        if not server:
            sock.sendall(wire.PREFACE)
        sock.sendall(wire.frame(wire.SETTINGS, 0, 0, b"\0\x08\0\0\0\1" if server else b""))
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        f = wire.Frames(self.sock)
        if self.server:
            got = b""
            while len(got) < len(wire.PREFACE) and (more := self.sock.recv(len(wire.PREFACE) - len(got))):
                got += more
        plain = f.one

        def one(kind, flags, stream, payload):
            plain(kind, flags, stream, payload)
            if kind == wire.PING and not flags & 1:
                self.sock.sendall(wire.frame(wire.PING, 1, 0, payload))
            with self.changed:
                self.frames.append((kind, flags, stream, payload))
                self.changed.notify_all()

        f.one = one
        try:
            while not f.eof:
                f.more()
        except OSError:
            pass
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def send(self, script):
        self.sock.sendall(wire.script(script, wire.RESPONSE if self.server else wire.REQUEST))

    def wait(self, what, match, seconds=10):
        """The first frame for which match(kind, flags, stream, payload) holds."""
        with self.changed:
            end = time.monotonic() + seconds
            while True:
                for frame in self.frames:
                    if match(*frame):
                        return frame
                if self.closed or time.monotonic() > end:
                    raise AssertionError("no %s among %s" % (what, [f[:3] for f in self.frames]))
                self.changed.wait(max(0.01, end - time.monotonic()))

    def head(self, stream=None):
        return self.wait("HEADERS", lambda k, f, s, p: k == wire.HEADERS and stream in (None, s))

    def end(self, stream):
        return self.wait("END_STREAM", lambda k, f, s, p: k in (wire.DATA, wire.HEADERS) and s == stream and f & 1)

    def reset(self, stream):
        return int.from_bytes(self.wait("RST_STREAM", lambda k, f, s, p: k == wire.RST and s == stream)[3], "big")

    def body(self, stream):
        return b"".join(p for k, f, s, p in self.frames if k == wire.DATA and s == stream)

    def data(self, stream, wanted):
        self.wait("%r" % wanted, lambda *_: wanted in self.body(stream))


class Accepting:
    """A backend whose connections the test drives itself."""

    def __init__(self, h2):
        self.listener, self.h2 = socket.create_server(("127.0.0.1", 0)), h2
        self.listener.settimeout(10)
        self.port = self.listener.getsockname()[1]

    def accept(self):
        sock = self.listener.accept()[0]
        sock.settimeout(10)
        return H2(sock, True) if self.h2 else sock


def until(sock, mark):
    data = b""
    while mark not in data and (more := sock.recv(65536)):
        data += more
    return data


class Semantics(unittest.TestCase):
    def setUp(self):
        self.b1, self.b2 = Accepting(False), Accepting(True)
        self.front, self.passing = free_port(), free_port()
        routes = [{"match": {"connect_matcher": {}}, "route": {"cluster": "h1", "timeout": "0s"}}, route("/h1", "h1", timeout="5s"), route("/h2", "h2")]
        up = {"upgrade_configs": [{"upgrade_type": "websocket"}, {"upgrade_type": "CONNECT"}], "http2_protocol_options": {"allow_connect": True}}
        self.sidecar = Sidecar(static([http_listener(self.front, routes, **up), http_listener(self.passing, routes, proxy_100_continue=True)],
                                      [cluster("h1", self.b1.port), cluster("h2", self.b2.port, h2=True)]), workers=1)

    def tearDown(self):
        stop(self.sidecar.process)

    def client(self, data=b"", port=None):
        s = wire.connect(port or self.front)
        s.sendall(data)
        return s

    def client2(self, script=""):
        c = H2(wire.connect(self.front), False)
        c.send(script)
        return c

    def get(self, path="/h1", lines=b""):
        return b"GET " + path.encode() + b" HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n"

    # ---- trailers
    CHUNKED = b"POST %s HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-up: 1\r\n\r\n"
    ANSWER = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nyo\r\n0\r\nx-down: 2\r\n\r\n"

    def test_trailers_h1_h1(self):
        c = self.client(self.CHUNKED % b"/h1")
        up = self.b1.accept()
        self.assertIn(b"\r\n2\r\nhi\r\n0\r\nx-up: 1\r\n\r\n", until(up, b"x-up: 1\r\n\r\n"))
        up.sendall(self.ANSWER)
        self.assertIn(b"\r\n2\r\nyo\r\n0\r\nx-down: 2\r\n\r\n", until(c, b"x-down: 2\r\n\r\n"))

    def test_trailers_h1_h2(self):
        c = self.client(self.CHUNKED % b"/h2")
        up = self.b2.accept()
        self.assertEqual(up.end(1)[0], wire.HEADERS)
        self.assertEqual(up.body(1), b"hi")
        up.send("HEADERS 1 ; DATA 1 yo ; HEADERS 1 BARE END x-down=2")
        self.assertIn(b"\r\n2\r\nyo\r\n0\r\nx-down: 2\r\n\r\n", until(c, b"x-down: 2\r\n\r\n"))

    def test_trailers_h2_h1(self):
        c = self.client2("HEADERS 1 :method=POST :path=/h1 ; DATA 1 hi ; HEADERS 1 BARE END x-up=1")
        up = self.b1.accept()
        self.assertIn(b"\r\n0\r\nx-up: 1\r\n\r\n", until(up, b"x-up: 1\r\n\r\n"))
        up.sendall(self.ANSWER)
        kind, flags, _, payload = c.end(1)
        self.assertEqual(kind, wire.HEADERS)
        self.assertEqual(c.body(1), b"yo")

    # ---- interim answers
    def test_103_goes_to_http2_only(self):
        for h2 in (False, True):
            c = self.client2("HEADERS 1 END :path=/h1") if h2 else self.client(self.get())
            up = self.b1.accept()
            until(up, b"\r\n\r\n")
            up.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK.replace(b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK\r\nConnection: close"))
            if h2:
                c.end(1)
                self.assertEqual([wire.status_of(p) for k, f, s, p in c.frames if k == wire.HEADERS], [103, 200])
            else:
                self.assertTrue(until(c, b"ok").startswith(b"HTTP/1.1 200"))

    POST = b"POST /h1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"

    def test_100_continue_is_answered_here(self):
        c = self.client(self.POST)
        self.assertEqual(until(c, b"\r\n\r\n"), b"HTTP/1.1 100 Continue\r\n\r\n")
        c.sendall(b"hello")
        up = self.b1.accept()
        self.assertNotIn(b"\r\nexpect:", until(up, b"hello").lower())
        up.sendall(OK)
        self.assertIn(b"200 OK", until(c, b"ok"))

    def test_100_continue_is_asked_for_upstream(self):
        c = self.client(self.POST, self.passing)
        up = self.b1.accept()
        self.assertIn(b"expect: 100-continue", until(up, b"\r\n\r\n").lower())
        up.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.assertEqual(until(c, b"\r\n\r\n"), b"HTTP/1.1 100 Continue\r\n\r\n")
        c.sendall(b"hello")
        until(up, b"hello")
        up.sendall(OK)
        self.assertIn(b"200 OK", until(c, b"ok"))

    def test_100_continue_refused_upstream(self):
        c = self.client(self.POST, self.passing)
        up = self.b1.accept()
        until(up, b"\r\n\r\n")
        up.sendall(b"HTTP/1.1 417 No\r\nContent-Length: 2\r\n\r\nno")
        self.assertIn(b"HTTP/1.1 417", until(c, b"no"))

    def test_100_continue_http2(self):
        c = self.client2("HEADERS 1 :method=POST :path=/h1 expect=100-continue")
        self.assertEqual(wire.status_of(c.head(1)[3]), 100)
        c.send("DATA 1 END hello")
        up = self.b1.accept()
        self.assertNotIn(b"\r\nexpect:", until(up, b"0\r\n\r\n").lower())
        up.sendall(OK)
        c.end(1)

    # ---- the connection
    def test_pipelined_requests_are_answered_in_order(self):
        c = self.client(self.get("/h1/1") + self.get("/h1/2") + self.get("/h1/3"))
        up = self.b1.accept()
        for n in (b"1", b"2", b"3"):
            self.assertIn(b"GET /h1/" + n, until(up, b"\r\n\r\n"))
            up.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + n)
        data = b""
        while data.count(b"200 OK") < 3 or not data.endswith(b"3"):
            data += c.recv(65536)
        self.assertEqual(re.findall(rb"\r\n\r\n(\d)", data), [b"1", b"2", b"3"])

    def test_half_close_after_the_request(self):
        c = self.client(self.get())
        c.shutdown(socket.SHUT_WR)
        up = self.b1.accept()
        until(up, b"\r\n\r\n")
        up.sendall(OK)
        self.assertTrue(wire.read_all(c).endswith(b"ok"))

    def test_early_answer_stops_the_upload(self):
        c = self.client(b"POST /h1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000)
        up = self.b1.accept()
        until(up, b"xxx")
        up.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        self.assertIn(b"HTTP/1.1 413", until(c, b"no"))
        wire.read_all(up)  # the upload ended and the connection with it
        c2 = self.client(self.get())
        up2 = self.b1.accept()  # the next request has another one
        until(up2, b"\r\n\r\n")
        up2.sendall(OK)
        until(c2, b"ok")

    def test_early_answer_http2(self):
        c = self.client2("HEADERS 1 :method=POST :path=/h2 ; DATA 1 some")
        up = self.b2.accept()
        up.data(1, b"some")
        up.send("HEADERS 1 END :status=413")
        self.assertEqual(wire.status_of(c.head(1)[3]), 413)
        c.end(1)
        self.assertEqual(c.reset(1), 0)  # NO_ERROR: the answer stands
        c.send("HEADERS 3 END :path=/h2")
        up.head(3)
        up.send("HEADERS 3 END")
        c.end(3)

    # ---- tunnels
    UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

    def accept_websocket(self, up):
        key = re.search(rb"(?i)sec-websocket-key: (\S+)", until(up, b"\r\n\r\n")).group(1)
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        up.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n")

    def test_websocket_h1_h1(self):
        c = self.client(self.get("/h1", self.UPGRADE) + b"early")
        up = self.b1.accept()
        self.accept_websocket(up)
        self.assertIn(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", until(c, b"\r\n\r\n"))
        self.assertEqual(until(up, b"early"), b"early")
        up.sendall(b"down")
        self.assertEqual(until(c, b"down"), b"down")
        c.shutdown(socket.SHUT_WR)
        self.assertEqual(wire.read_all(up), b"")
        up.sendall(b"after")
        self.assertEqual(until(c, b"after"), b"after")

    def test_websocket_h2_h1(self):
        c = self.client2()
        c.wait("SETTINGS", lambda k, f, s, p: k == wire.SETTINGS and b"\0\x08\0\0\0\1" in p)
        c.send("HEADERS 1 :method=CONNECT :protocol=websocket :path=/h1 sec-websocket-version=13")
        up = self.b1.accept()
        self.accept_websocket(up)
        self.assertEqual(wire.status_of(c.head(1)[3]), 200)
        c.send("DATA 1 up")
        self.assertEqual(until(up, b"up"), b"up")
        up.sendall(b"down")
        c.data(1, b"down")
        c.send("DATA 1 END")
        self.assertEqual(wire.read_all(up), b"")

    def test_websocket_h1_h2(self):
        c = self.client(self.get("/h2", self.UPGRADE))
        up = self.b2.accept()
        up.head(1)
        up.send("HEADERS 1")
        self.assertIn(b"101", until(c, b"\r\n\r\n"))
        c.sendall(b"up")
        up.data(1, b"up")
        up.send("DATA 1 END down")
        self.assertTrue(wire.read_all(c).endswith(b"down"))

    def test_websocket_refused(self):
        c = self.client(self.get("/h1", self.UPGRADE) + b"early")
        up = self.b1.accept()
        self.assertNotIn(b"early", until(up, b"\r\n\r\n"))
        up.sendall(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
        data = wire.read_all(c)  # closed: what followed the request was for the tunnel
        self.assertIn(b"HTTP/1.1 403", data)
        self.assertNotIn(b"early", wire.read_all(up))

    def test_connect(self):
        for h2 in (False, True):
            c = self.client2("HEADERS 1 BARE :method=CONNECT :authority=b:80") if h2 else self.client(b"CONNECT b:80 HTTP/1.1\r\nHost: b:80\r\n\r\n")
            up = self.b1.accept()
            self.assertTrue(until(up, b"\r\n\r\n").startswith(b"CONNECT b:80 HTTP/1.1\r\n"))
            up.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            if h2:
                c.head(1)
                c.send("DATA 1 up")
            else:
                self.assertIn(b"200", until(c, b"\r\n\r\n"))
                c.sendall(b"up")
            self.assertEqual(until(up, b"up"), b"up")
            up.sendall(b"down")
            c.data(1, b"down") if h2 else self.assertEqual(until(c, b"down"), b"down")

    # ---- gRPC
    GRPC = "HEADERS 1 :method=POST :path=/h2/S/M content-type=application/grpc te=trailers"

    def test_grpc_streams_both_ways(self):
        c = self.client2(self.GRPC)
        up = self.b2.accept()
        up.head(1)
        up.send("HEADERS 1 content-type=application/grpc")
        c.head(1)
        for n in ("one", "two", "three"):  # each answers the one before: nothing waits for an end
            c.send("DATA 1 %s" % n)
            up.data(1, n.encode())
            up.send("DATA 1 re-%s" % n)
            c.data(1, b"re-" + n.encode())
        c.send("DATA 1 END last")
        up.end(1)
        up.send("HEADERS 1 BARE END grpc-status=0")
        self.assertEqual(c.end(1)[0], wire.HEADERS)

    def test_grpc_unary_with_an_error(self):
        c = self.client2(self.GRPC + " ; DATA 1 END question")
        up = self.b2.accept()
        up.end(1)
        up.send("HEADERS 1 END content-type=application/grpc grpc-status=5 grpc-message=gone")
        kind, flags, _, payload = c.head(1)
        self.assertEqual((wire.status_of(payload), flags & 1), (200, 1))

    def test_grpc_cancellation_goes_both_ways(self):
        c = self.client2(self.GRPC + " ; DATA 1 question")
        up = self.b2.accept()
        up.data(1, b"question")
        c.send("RST 1 8")
        self.assertEqual(up.reset(1), 8)
        c.send(self.GRPC.replace(" 1 ", " 3 ") + " ; DATA 3 question")
        up.data(3, b"question")
        up.send("HEADERS 3 content-type=application/grpc ; DATA 3 half ; RST 3 8")
        self.assertIn(c.reset(3), (2, 8))

    def test_grpc_deadline(self):
        c = self.client2(self.GRPC + " grpc-timeout=200m ; DATA 1 END question")
        up = self.b2.accept()
        up.end(1)
        head = c.head(1)  # nobody has answered: we do
        self.assertEqual((wire.status_of(head[3]), head[1] & 1), (200, 1))
        self.assertEqual(up.reset(1), 8)


if __name__ == "__main__":
    main()
