"""A body of 1 GiB to a reader that stops costs the sidecar little: it stops reading, and so does everybody behind it."""
import os, socket, struct, threading

from cases import *
from envoy_config import *
from loopback import *

GIB = 1 << 30
MIB = 1 << 20
PIECE = b"z" * 65536
READ_FIRST = 8 * MIB      # what the reader takes before it stops
LIMIT_KB = 2048           # more resident memory than before, at the highest
LITERAL = lambda name, value: bytes([0, len(name)]) + name + bytes([len(value)]) + value


def memory_kb(pid):
    """Resident memory: its peak, and now."""
    with open("/proc/%d/status" % pid) as f:
        fields = dict(line.split(":", 1) for line in f)
    return [int(fields[name].split()[0]) for name in ("VmHWM", "VmRSS")]


def reset_peak(pid):
    """Only root may; for others the peak of the start stays, and what is resident now is the stricter of the two."""
    try:
        with open("/proc/%d/clear_refs" % pid, "w") as f:
            f.write("5")
    except PermissionError:
        assert os.getuid() != 0


class Pump(threading.Thread):
    """Writes `total` bytes by send(n); knows how far it came."""

    def __init__(self, send, total=GIB):
        super().__init__(daemon=True)
        self.send, self.total, self.sent = send, total, 0

    def run(self):
        try:
            while self.sent < self.total:
                self.sent += self.send(min(len(PIECE), self.total - self.sent))
        except OSError:
            pass


class H2:
    """Enough of HTTP/2 for one stream: frames, windows."""

    def __init__(self, sock, client):
        self.sock, self.client = sock, client
        self.stream_window = self.connection_window = 65535
        self.ready = threading.Condition()
        self.head = threading.Event()
        self.received, self.credit = 0, threading.Event()
        self.lock = threading.Lock()
        if client:
            sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self.frame(4, 0, 0, b"")
        threading.Thread(target=self.loop, daemon=True).start()

    def frame(self, kind, flags, stream, body):
        with self.lock:
            self.sock.sendall(len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body)

    def exactly(self, n):
        out = b""
        while len(out) < n:
            piece = self.sock.recv(n - len(out))
            if not piece:
                raise OSError("end")
            out += piece
        return out

    def loop(self):
        try:
            if not self.client:
                self.exactly(24)
            while True:
                h = self.exactly(9)
                size, kind, flags, stream = int.from_bytes(h[:3], "big"), h[3], h[4], int.from_bytes(h[5:], "big")
                body = self.exactly(size)
                with self.ready:
                    if kind == 4 and not flags & 1:
                        for i in range(0, size, 6):
                            key, value = struct.unpack(">HI", body[i:i + 6])
                            if key == 4:
                                self.stream_window += value - 65535
                        self.frame(4, 1, 0, b"")
                    elif kind == 8:
                        n = struct.unpack(">I", body)[0]
                        if stream:
                            self.stream_window += n
                        else:
                            self.connection_window += n
                    elif kind == 6 and not flags & 1:
                        self.frame(6, 1, 0, body)
                    elif kind == 1:
                        self.head.set()
                    elif kind == 0:
                        self.received += size
                        if self.received < READ_FIRST:  # then no more credit: the reader has stopped
                            self.frame(8, 0, 0, struct.pack(">I", size))
                            self.frame(8, 0, 1, struct.pack(">I", size))
                    self.ready.notify_all()
        except OSError:
            pass

    def send(self, n):
        with self.ready:
            self.ready.wait_for(lambda: min(self.stream_window, self.connection_window) > 0)
            n = min(n, self.stream_window, self.connection_window, 16384)
            self.stream_window -= n
            self.connection_window -= n
        self.frame(0, 0, 1, PIECE[:n])
        return n


def small_buffers(sock):
    """The kernel's share of what is under way stays out of the picture, and the test short."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    return sock


def until_blank(sock):
    text = b""
    while not text.endswith(b"\r\n\r\n"):
        text += sock.recv(1)
    return text


class Far:
    """The server: answers with 1 GiB (download), or takes a request and reads only the first of its body (upload)."""

    def __init__(self, kind, download):
        self.listener = small_buffers(socket.create_server(("127.0.0.1", 0)))
        self.port = self.listener.getsockname()[1]
        self.kind, self.download, self.pump, self.received, self.h2 = kind, download, None, 0, None
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        c, _ = self.listener.accept()
        self.sock = c
        if self.kind == "h2":
            h2 = self.h2 = H2(c, client=False)
            if self.download:
                h2.head.wait(20)
                h2.frame(1, 4, 1, b"\x88")
                self.pump = Pump(h2.send)
                self.pump.start()
            return
        if self.kind == "h1":
            until_blank(c)
        if self.download:
            if self.kind == "h1":
                c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % GIB)
            self.pump = Pump(lambda n: c.send(PIECE[:n]))
            self.pump.start()
        else:
            while self.received < READ_FIRST:
                self.received += len(c.recv(65536))

    def got(self):
        return self.received if self.h2 is None else self.h2.received


def near(kind, download, port):
    """The caller. Returns how much it has received and its pump."""
    c = small_buffers(socket.create_connection(("127.0.0.1", port), 20))
    c.settimeout(None)
    state = {"sock": c, "got": lambda: 0, "pump": None}
    if kind == "h2":
        h2 = H2(c, client=True)
        method = LITERAL(b":method", b"GET" if download else b"POST")
        h2.frame(1, 5 if download else 4, 1, method + LITERAL(b":scheme", b"http") + LITERAL(b":authority", b"a") + LITERAL(b":path", b"/"))
        state["got"] = lambda: h2.received
        send = h2.send
    else:
        send = lambda n: c.send(PIECE[:n])
        if kind == "h1":
            c.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" if download else b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % GIB)
    if not download:
        state["pump"] = Pump(send)
        state["pump"].start()
    elif kind != "h2":
        if kind == "h1":
            until_blank(c)
        got = 0
        while got < READ_FIRST:
            got += len(c.recv(65536))
        state["got"] = lambda: got
    return state


def stalled(caller_kind, server_kind, download):
    far = Far(server_kind, download)
    end = tcp_proxy("c") if server_kind == "tcp" else hcm([route("/", "c", timeout="0s")])
    s = Sidecar(static([listener("l", end)], [cluster("c", far.port, h2=server_kind == "h2")]))
    port, pid = s.port("l"), s.process.pid
    reset_peak(pid)
    before = memory_kb(pid)
    caller = near(caller_kind, download, port)
    pump = lambda: far.pump if download else caller["pump"]
    taken = caller["got"] if download else far.got
    wait_for("the reader has its share", lambda: pump() and taken() >= READ_FIRST, 60)
    # Nobody moves any more: the writer is held up, far from its end.
    last = [-1, 0]

    def at_rest():
        last[1] = last[1] + 1 if pump().sent == last[0] else 0
        last[0] = pump().sent
        return last[1] >= 25

    wait_for("the writer is held up", at_rest, 60)
    assert pump().sent < READ_FIRST + 64 * MIB, pump().sent
    grown = max(now - then for now, then in zip(memory_kb(pid), before))
    print("%s -> %s %s: %d KiB more, writer held up at %.1f MiB" % (caller_kind, server_kind, "download" if download else "upload", grown, pump().sent / MIB))
    assert SANITIZED or grown <= LIMIT_KB, grown
    caller["sock"].close()
    far.sock.close()


def test_http1():
    stalled("h1", "h1", True), stalled("h1", "h1", False)


def test_http2():
    stalled("h2", "h2", True), stalled("h2", "h2", False)


def test_http1_to_http2():
    stalled("h1", "h2", True), stalled("h1", "h2", False)


def test_http2_to_http1():
    stalled("h2", "h1", True), stalled("h2", "h1", False)


def test_tcp():
    stalled("tcp", "tcp", True), stalled("tcp", "tcp", False)


if __name__ == "__main__":
    main()
