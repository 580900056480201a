"""A host that vanishes without a word: requests go to the other one within seconds. In a network namespace of its own."""
import time, unittest

from cases import *
from envoy_config import *
from loopback import *
import wire


def named(name, h2):
    """A backend that answers every request with its name."""
    def serve1(sock, _):
        rest = b""
        while (got := wire.read_request(sock, rest))[0] is not None:
            rest = got[1]
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + name)

    def serve2(sock, _):
        seen = b""
        while len(seen) < len(wire.PREFACE):
            seen += sock.recv(len(wire.PREFACE) - len(seen))
        sock.sendall(wire.frame(wire.SETTINGS, 0, 0))
        f = wire.Frames(sock)
        plain = f.one

        def one(kind, flags, stream, payload):
            plain(kind, flags, stream, payload)
            if kind == wire.HEADERS:
                sock.sendall(wire.script("HEADERS %d ; DATA %d END %s" % (stream, stream, name.decode()), wire.RESPONSE))
            elif kind == wire.PING and not flags & 1:
                sock.sendall(wire.frame(wire.PING, 1, 0, payload))

        f.one = one
        while not f.eof:
            f.more()

    return wire.Backend(serve2 if h2 else serve1)


class Unreachable(unittest.TestCase):
    def check(self, h2):
        need("curl", "nft")
        a, b, front = named(b"a", h2), named(b"b", h2), free_port()
        sidecar = Sidecar(static([http_listener(front, [route("/", "back")])], [cluster("back", a.port, b.port, h2=h2)]), workers=1)
        get = lambda: run("curl", "-sS", "-m", "30", "http://127.0.0.1:%d/" % front).stdout
        self.assertEqual({get() for _ in range(6)}, {"a", "b"})
        run("nft", "add table ip cut; add chain ip cut in { type filter hook input priority 0; }; add rule ip cut in tcp dport %d drop; add rule ip cut in tcp sport %d drop" % (a.port, a.port))
        longest = 0
        for _ in range(4):
            start_at = time.monotonic()
            self.assertEqual(get(), "b")
            longest = max(longest, time.monotonic() - start_at)
        run("nft", "delete table ip cut")
        self.assertLess(longest, 5.5, "until a vanished host's request was answered by the other one")
        stop(sidecar.process)

    def test_http1(self):
        self.check(False)

    def test_http2(self):
        self.check(True)


if __name__ == "__main__":
    in_own_namespace()
    main()
