"""The strictness, abuse and translation tables against the built sidecar, in both directions; and h2spec --strict.

The rows are the *.table files beside this one; test/support/wire.py has their notation."""
import http.client as client
import os, re, socket, threading, unittest

from cases import *
from envoy_config import *
from loopback import *
import wire

HERE = os.path.dirname(__file__)


class Seen:
    """A backend that answers 200 and keeps the requests it was sent."""

    def __init__(self):
        self.requests = []
        self.backend = wire.Backend(self.serve)
        self.port = self.backend.port

    def serve(self, sock, _):
        rest = b""
        while True:
            request, rest = wire.read_request(sock, rest)
            if request is None:
                return
            self.requests.append(wire.one_chunk(request))
            head = request.startswith(b"HEAD")
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n" + (b"" if head else b"sixteen bytes ok"))


def request_bytes(row):
    if row.startswith("@get "):
        body = wire.text(row[5:])
        end = b"" if b"\r\n\r\n" in body else b"\r\n"
        return b"GET / HTTP/1.1\r\nHost: a\r\n" + body + end
    if row.startswith("@post "):
        return b"POST / HTTP/1.1\r\nHost: a\r\n" + wire.text(row[6:])
    if row.startswith("@chunked "):
        return b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + wire.text(row[9:])
    return wire.text(row)


def first_answer(sock):
    """(status, what has come with the head)"""
    data = b""
    try:
        while b"\r\n\r\n" not in data and (more := sock.recv(65536)):
            data += more
    except ConnectionResetError:
        pass
    return (int(data[9:12]) if data.startswith(b"HTTP/1.1 ") else 0), data


class Requests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.seen, cls.h1, cls.h2 = Seen(), free_port(), free_port()
        routes = [route("/", "back")]
        cls.sidecar = Sidecar(static([http_listener(cls.h1, routes, codec_type="HTTP1", use_remote_address=True), http_listener(cls.h2, routes, codec_type="HTTP2", use_remote_address=True)],
                                     [cluster("back", cls.seen.port)]), workers=1)

    def judge(self, outcome, status, since):
        """None, or what is wrong."""
        wanted, rest = re.match(r"(\d+)(.*)", outcome).groups()
        if status != int(wanted):
            return "answered %d" % status
        if status != 200:
            return "forwarded" if len(self.seen.requests) != since else None
        if len(self.seen.requests) != since + 1:
            return "forwarded %d times: %r" % (len(self.seen.requests) - since, self.seen.requests[since:])
        forwarded = self.seen.requests[-1].decode("latin-1")
        saw, hides = re.search(r" saw (.*?)(?= hides |$)", rest), re.search(r" hides (.*)$", rest)
        if saw and not re.search(saw.group(1), forwarded):
            return "the backend saw %r" % forwarded
        if hides and re.search(hides.group(1), forwarded):
            return "the backend saw %r" % forwarded
        return None

    def test_http1(self):
        wrong = []
        for name, row, outcome in wire.rows(os.path.join(HERE, "h1_requests.table")):
            data = request_bytes(row)
            for step in (len(data), 1) if len(data) < 400 else (len(data),):
                since = len(self.seen.requests)
                s = wire.connect(self.h1)
                try:
                    for i in range(0, len(data), step):
                        s.sendall(data[i:i + step])
                except (ConnectionResetError, BrokenPipeError):
                    pass
                try:
                    status, answer = first_answer(s)
                    problem = self.judge(outcome, status, since)
                    if not problem and status in (400, 414, 417, 426, 431, 501, 505):
                        problem = "stays open" if b"connection: close" not in answer.lower() else None
                        wire.read_all(s)  # times out when it stays
                except TimeoutError:
                    problem = "no end"
                if problem:
                    wrong.append("%s (%s): %s, not %s" % (name, "whole" if step > 1 else "byte by byte", problem, outcome))
                s.close()
        self.assertFalse(wrong, "\n" + "\n".join(wrong))

    def test_http2(self):
        wrong = []
        for name, row, outcome in wire.rows(os.path.join(HERE, "h2_requests.table")):
            data = wire.PREFACE + wire.frame(wire.SETTINGS, 0, 0) + wire.script(row)
            outcome, only_whole, _ = outcome.partition(" whole")
            for step in (len(data), 1) if len(data) < 400 and not only_whole else (len(data),):
                since = len(self.seen.requests)
                s = wire.connect(self.h2)
                f = wire.Frames(s)
                try:
                    for i in range(0, len(data), step):
                        s.sendall(data[i:i + step])
                except (ConnectionResetError, BrokenPipeError):
                    pass
                try:
                    problem = self.judge_frames(f, outcome, since)
                except TimeoutError:
                    problem = "silence after %s" % f.said[:5]
                if problem:
                    wrong.append("%s (%s): %s, not %s" % (name, "whole" if step > 1 else "byte by byte", problem, outcome))
                s.close()
        self.assertFalse(wrong, "\n" + "\n".join(wrong))

    def judge_frames(self, f, outcome, since):
        if outcome.startswith("goaway"):
            f.until(lambda said: any(x.startswith("goaway") for x in said))
            goaways = [x for x in f.said if x.startswith("goaway") and x != "goaway 0"]
            while not goaways and not f.eof:
                f.more()
                goaways = [x for x in f.said if x.startswith("goaway") and x != "goaway 0"]
            if goaways[:1] != [outcome]:
                return "said %s" % f.said[-5:]
            while not f.eof:
                f.more()
            return None
        if outcome.startswith("rst"):
            f.until(lambda said: any(x.startswith(("rst 1", "end 1", "goaway")) for x in said))
            problem = None if outcome in f.said else "said %s" % f.said
        else:
            f.until(lambda said: any(x.startswith(("rst 1", "end 1", "goaway")) for x in said))
            answers = [x for x in f.said if x.endswith(" on 1")]
            problem = self.judge(outcome, int(answers[0].split()[0]), since) if answers else "said %s" % f.said
        if problem:
            return problem
        f.sock.sendall(wire.script("HEADERS 99 END :path=/neighbour"))
        f.until(lambda said: any(x.startswith(("end 99", "rst 99", "goaway")) for x in said))
        return None if "200 on 99" in f.said else "the neighbour got %s" % f.said


class Responses(unittest.TestCase):
    """A backend with a script for one connection's first request; every other request is answered "ok"."""

    @classmethod
    def setUpClass(cls):
        cls.script, cls.eof, cls.at = None, False, 0
        cls.lock = threading.Lock()
        cls.b1, cls.b2 = wire.Backend(cls.serve1), wire.Backend(cls.serve2)
        cls.h1, cls.over_h2 = free_port(), free_port()
        once = {"retry_policy": {"retry_on": "5xx", "num_retries": 0}}
        routes = [route("/retry/h1", "h1"), route("/retry/h2", "h2"), route("/h1", "h1", **once), route("/h2", "h2", **once)]
        cls.sidecar = Sidecar(static([http_listener(cls.h1, routes), http_listener(cls.over_h2, routes, codec_type="HTTP2")],
                                     [cluster("h1", cls.b1.port), cluster("h2", cls.b2.port, h2=True)]), workers=1)

    @classmethod
    def take(cls, n):
        with cls.lock:
            script, cls.script = cls.script, None
            cls.at = n
            return script, cls.eof and script is not None

    @classmethod
    def serve1(cls, sock, n):
        rest = b""
        while True:
            request, rest = wire.read_request(sock, rest)
            if request is None:
                return
            script, eof = cls.take(n)
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" if script is None else script)
            if eof:
                sock.shutdown(socket.SHUT_WR)

    @classmethod
    def serve2(cls, sock, n):
        f = wire.Frames(sock)
        preface = b""
        while len(preface) < len(wire.PREFACE):
            preface += sock.recv(len(wire.PREFACE) - len(preface))
        sock.sendall(wire.frame(wire.SETTINGS, 0, 0))
        answered = 0
        plain = f.one

        def one(kind, flags, stream, payload):
            nonlocal answered
            plain(kind, flags, stream, payload)
            if kind == wire.HEADERS:
                answered += 1
                script, eof = cls.take(n)
                text = "HEADERS %d content-length=2 ; DATA %d END ok" % (stream, stream) if script is None else re.sub(r"^(HEADERS|DATA|RST|WINDOW) 1\b", r"\1 %d" % stream, script)
                if script is not None:
                    text = re.sub(r"( ; (?:HEADERS|DATA|RST|WINDOW)) 1\b", r"\1 %d" % stream, text)
                    text = re.sub(r"(RAW \d+ \d+) 1\b", r"\1 %d" % stream, text)
                    text = re.sub(r"GOAWAY 1\b", "GOAWAY %d" % stream, text)
                    text = text.replace("GOAWAY 0", "GOAWAY %d" % max(0, stream - 2))
                sock.sendall(wire.script(text, wire.RESPONSE))
                if eof:
                    sock.shutdown(socket.SHUT_WR)

        f.one = one
        while not f.eof:
            f.more()

    def ask(self, path, method="GET"):
        c = client.HTTPConnection("127.0.0.1", self.h1, timeout=10)
        try:
            c.request(method, path)
            r = c.getresponse()
            status = r.status
            try:
                return "%d %s" % (status, r.read().decode("latin-1"))
            except (client.IncompleteRead, ConnectionResetError):
                return "cut"
        except (client.RemoteDisconnected, ConnectionResetError):
            return "closed"
        finally:
            c.close()

    def ask2(self, path, method="GET"):
        s = wire.connect(self.over_h2)
        s.sendall(wire.PREFACE + wire.frame(wire.SETTINGS, 0, 0) + wire.script("HEADERS 1 END :method=%s :path=%s" % (method, path)))
        f = wire.Frames(s)
        f.until(lambda said: any(x.startswith(("rst 1", "end 1", "goaway")) for x in said))
        s.close()
        status = [x.split()[0] for x in f.said if re.match(r"[2-9]\d\d on 1$", x)]
        if any(x.startswith("rst") for x in f.said):
            return "cut"
        return "%s %s" % (status[0], f.bodies[1].decode("latin-1")) if status else "said %s" % f.said

    def run_table(self, file, path, convert, backend):
        wrong = []
        for name, row, outcome in wire.rows(os.path.join(HERE, file)):
            method = "GET"
            if path == "/h1":
                method, _, row = row.partition(" ")
            words = outcome.split()
            flags = set(words) & {"fresh", "reused", "eof", "retry"}
            wanted = " ".join(w for w in words if w not in flags)
            for ask in (self.ask, self.ask2):
                self.ask(path)  # a connection is there, and known
                before, cls = self.at, type(self)
                with self.lock:
                    cls.script, cls.eof = convert(row), "eof" in flags
                try:
                    got = ask("/retry" + path if "retry" in flags else path, method).strip()
                except TimeoutError:
                    got = "silence"
                if re.match(r"50\d", wanted):
                    got = got[:3]
                self.ask(path)
                how = "reused" if self.at == before else "fresh"
                if got != wanted or how not in flags:
                    wrong.append("%s (%s): %s %s, not %s" % (name, ask.__name__, got[:60], how, outcome))
        self.assertFalse(wrong, "\n" + "\n".join(wrong))

    def test_http1(self):
        self.run_table("h1_responses.table", "/h1", wire.text, self.b1)

    def test_http2(self):
        self.run_table("h2_responses.table", "/h2", str, self.b2)


class H2spec(unittest.TestCase):
    def test_strict_plain_and_tls_and_with_http2_behind(self):
        h2spec = os.path.join(RUNFILES, "../h2spec/h2spec")
        if not os.path.exists(h2spec):
            self.skipTest("h2spec was not built (it needs Go and its modules)")
        seen, plain, secure, front = Seen(), free_port(), free_port(), free_port()
        leaf = Certs().leaf("server", "DNS:localhost", "/CN=server")
        Sidecar(static([http_listener(plain, [route("/", "back")], codec_type="HTTP2"), http_listener(secure, [route("/", "back")], tls(leaf, server=True, minimum="TLSv1_3")),
                        http_listener(front, [route("/", "ours")], codec_type="HTTP2")],
                       [cluster("back", seen.port), cluster("ours", plain, h2=True)]), workers=1)
        for flags in (["-p", str(plain)], ["-p", str(secure), "-t", "-k"], ["-p", str(front)]):
            r = run(h2spec, "--strict", "-h", "127.0.0.1", *flags, timeout=240)
            self.assertEqual(r.returncode, 0, r.stdout[r.stdout.find("Failures:"):])
            self.assertIn("146 tests, 146 passed", r.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
