"""Bytes on the wire, written and read by hand: HTTP/2 frames from one-line scripts, raw backends, raw clients.

A frame script is a list of frames joined by " ; ":
  HEADERS 1 END :method=POST x-a=1     pseudo-headers not named are added (none with BARE); END, NOENDHEADERS: flags
  CONT 1 ENDHEADERS x-b=2              DATA 1 END hello        RST 1 8          WINDOW 1 0        PRIORITY 1 3
  SETTINGS 4=65535                     PING ACK                GOAWAY 0 0       RAW type flags stream hex
"500* PING" repeats a frame; %d in a repeated one counts 1, 3, 5 ... Fields are literals, never indexed.
"""
import re, socket, struct, threading

DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONT = range(10)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
STATIC_STATUS = {0x88: 200, 0x89: 204, 0x8a: 206, 0x8b: 304, 0x8c: 400, 0x8d: 404, 0x8e: 500}


def text(s):
    """The bytes a table row means: Python escapes, and {65536*x} for repetition."""
    s = re.sub(r"\{(\d+)\*([^}]+)\}", lambda m: m.group(2) * int(m.group(1)), s)
    return s.encode("latin-1").decode("unicode_escape").encode("latin-1")


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _integer(n):
    if n < 127:
        return bytes([n])
    out, n = [127], n - 127
    while n >= 128:
        out.append(n % 128 + 128)
        n //= 128
    return bytes(out + [n])


def block(fields):
    return b"".join(b"\x10" + _integer(len(n)) + n + _integer(len(v)) + v for n, v in fields)


def _fields(words, base):
    given = []
    for w in words:
        n, _, v = (w[1:] if w[0] == ":" else w).partition("=")
        given.append((text((":" if w[0] == ":" else "") + n), text(v.replace("+", " "))))
    names = {n for n, _ in given if n.startswith(b":")}
    return [(n, v) for n, v in base if n not in names] + given


REQUEST = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/")]
RESPONSE = [(b":status", b"200")]


def script(s, base=REQUEST):
    out = b""
    for part in filter(None, (p.strip() for p in s.split(" ; "))):
        times, star, rest = part.partition("* ")
        if star and times.isdigit():
            out += b"".join(_one(rest.replace("%d", str(2 * i + 1)), base) for i in range(int(times)))
        else:
            out += _one(part, base)
    return out


def _one(part, base):
    words = part.split()
    kind, words = words[0], words[1:]
    if kind == "SETTINGS":
        stream = int(words.pop(0)[1:]) if words and words[0].startswith("@") else 0
        if words and words[0] == "ACK":
            return frame(SETTINGS, 1, stream, text(words[1]) if len(words) > 1 else b"")
        return frame(SETTINGS, 0, stream, b"".join(struct.pack(">HI", *(int(x) for x in w.split("="))) for w in words))
    if kind == "PING":
        return frame(PING, 1 if "ACK" in words else 0, 0, b"12345678")
    if kind == "RAW":
        return frame(int(words[0]), int(words[1]), int(words[2]), bytes.fromhex(words[3]) if len(words) > 3 else b"")
    if kind == "GOAWAY":
        return frame(GOAWAY, 0, 0, struct.pack(">II", int(words[0]), int(words[1])))
    stream, words = int(words[0]), words[1:]
    if kind in ("RST", "WINDOW"):
        return frame({"RST": RST, "WINDOW": WINDOW}[kind], 0, stream, struct.pack(">I", int(words[0])))
    if kind == "PRIORITY":
        return frame(PRIORITY, 0, stream, struct.pack(">IB", int(words[0]), 16))
    end = "END" in words
    if kind == "DATA":
        return frame(DATA, 1 if end else 0, stream, text(" ".join(w for w in words if w != "END")))
    if kind == "HEADERS":
        bare = "BARE" in words
        more = "NOENDHEADERS" in words
        words = [w for w in words if w not in ("END", "BARE", "NOENDHEADERS")]
        return frame(HEADERS, (1 if end else 0) | (0 if more else 4), stream, block(_fields(words, [] if bare else base)))
    if kind == "CONT":
        last = "ENDHEADERS" in words
        return frame(CONT, 4 if last else 0, stream, block(_fields([w for w in words if w != "ENDHEADERS"], [])))
    raise ValueError(part)


def status_of(payload):
    """:status of a response block: it comes first, from the static table or as a literal. 0: something else."""
    while payload[0] & 0xe0 == 0x20:
        payload = payload[1:]
    if payload[0] in STATIC_STATUS:
        return STATIC_STATUS[payload[0]]
    if payload[0] not in (0x48, 0x08, 0x18):
        return 0
    n = payload[1] & 0x7f
    value = payload[2:2 + n]
    if not payload[1] & 0x80:
        return int(value)
    bits, digits = "".join(format(b, "08b") for b in value), ""
    while len(digits) < 3:  # the digits of HPACK's Huffman code
        k = 5 if bits[:5] in ("00000", "00001", "00010") else 6
        digits += str(int(bits[:5], 2) if k == 5 else int(bits[:6], 2) - 25 + 3)
        bits = bits[k:]
    return int(digits)


class Frames:
    """Reads frames from a socket; what was understood is kept in said ("goaway 1", "rst 1 8", "200 on 1", "end 1")."""

    def __init__(self, sock):
        self.sock, self.buffer, self.said, self.bodies, self.goaways, self.eof = sock, b"", [], {}, [], False

    def more(self):
        try:
            data = self.sock.recv(65536)
        except (ConnectionResetError, BrokenPipeError):
            data = b""
        if not data:
            self.eof = True
            return
        self.buffer += data
        while len(self.buffer) >= 9:
            n = int.from_bytes(self.buffer[:3], "big")
            if len(self.buffer) < 9 + n:
                return
            kind, flags, stream = self.buffer[3], self.buffer[4], int.from_bytes(self.buffer[5:9], "big")
            payload, self.buffer = self.buffer[9:9 + n], self.buffer[9 + n:]
            self.one(kind, flags, stream, payload)

    def one(self, kind, flags, stream, payload):
        if kind == GOAWAY:
            self.said.append("goaway %d" % int.from_bytes(payload[4:8], "big"))
            self.goaways.append(int.from_bytes(payload[:4], "big"))  # the last stream id
        elif kind == RST:
            self.said.append("rst %d %d" % (stream, int.from_bytes(payload, "big")))
        elif kind == HEADERS:
            self.bodies.setdefault(stream, b"")
            if status := status_of(payload):  # else trailers
                self.said.append("%d on %d" % (status, stream))
        elif kind == DATA:
            self.bodies[stream] = self.bodies.get(stream, b"") + payload
        elif kind == SETTINGS and not flags & 1:
            self.sock.sendall(frame(SETTINGS, 1, 0))
        if kind in (DATA, HEADERS) and flags & 1:
            self.said.append("end %d" % stream)

    def until(self, done):
        while not self.eof and not done(self.said):
            self.more()
        return self.said


class Backend:
    """Accepts connections; behave(sock, number of the connection) serves each on a thread of its own."""

    def __init__(self, behave):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port, self.count, self.behave = self.listener.getsockname()[1], 0, behave
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            sock = self.listener.accept()[0]
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.count += 1
            threading.Thread(target=self._serve, args=(sock, self.count), daemon=True).start()

    def _serve(self, sock, n):
        try:
            self.behave(sock, n)
        except OSError:
            pass
        sock.close()


def read_request(sock, buffer=b""):
    """One HTTP/1.1 request with its body as (all its bytes, what followed); None at the end."""
    while b"\r\n\r\n" not in buffer:
        data = sock.recv(65536)
        if not data:
            return None, buffer
        buffer += data
    head = buffer[:buffer.index(b"\r\n\r\n") + 4]
    length = re.search(rb"(?im)^content-length: *(\d+)", head)
    chunked = re.search(rb"(?im)^transfer-encoding: *chunked", head)
    while True:
        if chunked:
            m = re.search(rb"(?s)\A(?:|.*\r\n)0\r\n(?:[^\r\n]+\r\n)*\r\n", buffer[len(head):])
            size = len(head) + m.end() if m else None
        else:
            size = len(head) + (int(length.group(1)) if length else 0)
        if size is not None and len(buffer) >= size:
            return buffer[:size], buffer[size:]
        data = sock.recv(65536)
        if not data:
            return None, buffer
        buffer += data


def one_chunk(request):
    """The request with the chunks of its body joined: how they were cut is the sender's timing. What is not plain chunks stays."""
    head, _, rest = request.partition(b"\r\n\r\n")
    body = b""
    while m := re.match(rb"([1-9a-f][0-9a-f]*)\r\n", rest):
        end = m.end() + int(m.group(1), 16)
        if rest[end:end + 2] != b"\r\n":
            return request
        body, rest = body + rest[m.end():end], rest[end + 2:]
    return head + b"\r\n\r\n%x\r\n" % len(body) + body + b"\r\n" + rest if body and rest.startswith(b"0\r\n") else request


def connect(port, seconds=10):
    s = socket.create_connection(("127.0.0.1", port), seconds)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def read_exactly(sock, n):
    out = b""
    while len(out) < n:
        piece = sock.recv(n - len(out))
        if not piece:
            raise AssertionError("closed after %r" % out)
        out += piece
    return out


def read_all(sock):
    out = b""
    try:
        while data := sock.recv(65536):
            out += data
    except (ConnectionResetError, BrokenPipeError):
        pass
    return out


def rows(path):
    """Rows "name | bytes | outcome" of a table file; blank lines and lines with # in front are comment."""
    with open(path) as f:
        for line in f:
            line = line.rstrip("\n")
            if line and not line.startswith("#"):
                name, body, outcome = (part.strip() for part in line.split(" | "))
                yield name, body, outcome
