"""What the shop's Python services share: a small threaded HTTP/1.1 server and a client that forwards the trace headers.

    class Cart(Service):
        def get(self, request): ...
    serve(Cart)

Control, for drills only: POST /_chaos?fail_percent=30&delay_ms=100&reset_percent=1 makes the process misbehave; zero heals it.
"""
import argparse, base64, hashlib, http.client, json, os, random, signal, socket, struct, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

TRACE = ("traceparent", "tracestate", "x-request-id")
local = threading.local()


def call(request, host, path, method="GET", body=None, timeout=10):
    """(status, bytes) from http://host/path with the incoming request's trace headers; one kept connection per thread and host."""
    pool = local.__dict__.setdefault("pool", {})
    headers = {k: request.headers[k] for k in TRACE if request.headers.get(k)}
    for fresh in (False, True):
        c = pool.get(host)
        if c is None or fresh:
            c = pool[host] = http.client.HTTPConnection(host, timeout=timeout)
        try:
            c.request(method, path, body, headers)
            r = c.getresponse()
            return r.status, r.read()
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            c.close()
            if fresh or method != "GET":  # a kept connection may have been closed meanwhile: one fresh try, for GET
                pool.pop(host, None)
                return 502, b"connection lost"
        except OSError as e:
            c.close()
            pool.pop(host, None)
            return 502, str(e).encode()


class Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # head and body leave in one write, flushed when the request is done
    chaos = {"fail_percent": 0.0, "delay_ms": 0.0, "reset_percent": 0.0}
    args = None

    def get(self, url, query):
        raise NotImplementedError

    post = get

    def reply(self, status, body, kind="application/json"):
        if not isinstance(body, bytes):
            body = (json.dumps(body) + "\n").encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.send_header("x-served-by", "%s/%s" % (self.args.name, self.args.version))
        self.end_headers()
        self.wfile.write(body)

    def dispatch(self, handler):
        url = urlsplit(self.path)
        query = {k: v[-1] for k, v in parse_qs(url.query).items()}
        n = int(self.headers.get("content-length") or 0)
        self.body = self.rfile.read(n) if n else b""
        if url.path == "/healthz":
            return self.reply(200, b"ok\n", "text/plain")
        if url.path == "/_chaos" and self.command == "POST":
            for k in self.chaos:
                self.chaos[k] = float(query.get(k, 0))
            return self.reply(200, self.chaos)
        if url.path == "/_version":
            return self.reply(200, {"service": self.args.name, "version": self.args.version, "instance": socket.gethostname(), "pid": os.getpid()})
        if self.chaos["delay_ms"]:
            time.sleep(self.chaos["delay_ms"] / 1000)
        if random.random() * 100 < self.chaos["fail_percent"]:
            return self.reply(503, {"error": "chaos"})
        if random.random() * 100 < self.chaos["reset_percent"]:
            return self.reset()
        handler(url.path, query)

    def reset(self):
        """Cuts the connection with a TCP reset: before the answer, or in the middle of it."""
        if random.random() < 0.5:
            self.connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf of it")
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())
        self.close_connection = True

    def do_GET(self):
        if self.headers.get("upgrade", "").lower() == "websocket":
            return self.websocket()
        self.dispatch(self.get)

    def do_POST(self):
        self.dispatch(self.post)

    def websocket(self):
        """RFC 6455 echo until the peer closes."""
        key = self.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("upgrade", "websocket")
        self.send_header("connection", "Upgrade")
        self.send_header("sec-websocket-accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.end_headers()
        self.wfile.flush()
        self.close_connection = True
        try:
            while True:
                head = self.rfile.read(2)
                if len(head) < 2:
                    return
                op, n = head[0] & 15, head[1] & 127
                if n == 126:
                    n = struct.unpack(">H", self.rfile.read(2))[0]
                elif n == 127:
                    n = struct.unpack(">Q", self.rfile.read(8))[0]
                mask = self.rfile.read(4)
                data = bytes(b ^ mask[i & 3] for i, b in enumerate(self.rfile.read(n)))
                size = struct.pack(">BB", 0x80 | op, n) if n < 126 else struct.pack(">BBH", 0x80 | op, 126, n)
                self.wfile.write(size + data)
                self.wfile.flush()
                if op == 8:
                    return
        except OSError:
            pass

    def log_message(self, *a):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512
    disable_nagle_algorithm = True

    def handle_error(self, request, client_address):
        pass  # a peer that left is not news


def serve(cls, **flags):
    p = argparse.ArgumentParser()
    p.add_argument("--name", default=os.path.basename(sys.argv[0]).removesuffix(".py"))
    p.add_argument("--port", type=int, default=8000)
    p.add_argument("--version", default="v1")
    for k, v in flags.items():
        p.add_argument("--" + k, default=v)
    cls.args = p.parse_args()
    cls.disable_nagle_algorithm = True
    server = Server(("0.0.0.0", cls.args.port), cls)
    signal.signal(signal.SIGTERM, lambda *a: threading.Thread(target=server.shutdown).start())
    print("%s %s listens on %d" % (cls.args.name, cls.args.version, cls.args.port), flush=True)
    server.serve_forever()
