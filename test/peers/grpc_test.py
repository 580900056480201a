"""gRPC between applications in C++ and in Python (grpc_peer.cc, grpc_peer.py) through two sidecars with mutual TLS: unary calls and all
three kinds of streams, with compression, deadlines, cancellation, statuses with details, and metadata."""
import json, os, unittest

from cases import *
from envoy_config import *
from loopback import *
import wire

# What every client must see of every server.
FIVE = lambda text: [text] * 5
WANTED = {
    "echo hello": {"unary": (0, ["echo hello"]), "down": (0, ["%d echo hello" % i for i in range(5)]), "both": (0, FIVE("echo hello")),
                   "up": (0, ["".join(FIVE("echo hello;"))])},
    "big 300000": {"unary": (0, ["xxxx...300000"]), "down": (0, ["%d xx...300002" % i for i in range(5)]), "both": (0, FIVE("xxxx...300000")),
                   "up": (0, ["".join(FIVE("big 300000;"))])},
    "fail": {"unary": (5, [""]), "down": (5, ["%d fail" % i for i in range(5)]), "both": (5, []), "up": (5, [""])},
    "wait": {"unary": (4, [""]), "down": (4, []), "both": (4, [])},
}
PEER = os.path.join(RUNFILES, "test/support/grpc_peer.py")


def python():
    """One that has grpc: the test's own, or the system's."""
    for p in ("python3", "/usr/bin/python3"):
        if run(p, "-c", "import grpc").returncode == 0:
            return p
    raise unittest.SkipTest("no Python with grpc is installed (python3-grpcio)")


def commands():
    return {"C++": [binary("//test/support:grpc_peer")], "Python": [python(), "-B", PEER]}


class Grpc(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.peers, certs = commands(), Certs()
        server, client = certs.leaf("server", "URI:" + spiffe("echo")), certs.leaf("client", "URI:" + spiffe("web"))
        cls.servers, cls.sidecars = {}, {}
        for name, argv in cls.peers.items():
            port = free_port()
            cls.servers[name] = start(*argv, "server", str(port), env=NOT_JUDGED, log="server-%s.log" % name)
            wait_port(port, cls.servers[name])
            inner = Sidecar(static([listener("l", hcm([route("/", "app", timeout="0s")]), transport=tls(server, certs.ca, server=True, alpn=["h2"], require_client_certificate=True))],
                                   [cluster("app", port, h2=True)]))
            far = cluster("far", inner.port("l"), h2=True, connect_timeout="10s", tls=tls(client, certs.ca, alpn=["h2"], sans=[spiffe("echo")], sni="server"))
            outer = Sidecar(static([listener("l", hcm([route("/", "far", timeout="0s")]))], [far]))
            cls.sidecars[name] = (outer, inner)

    def check(self, client, server):
        outer, inner = self.sidecars[server]
        r = run(*self.peers[client], "client", str(outer.port("l")), env=NOT_JUDGED)
        self.assertEqual(r.returncode, 0, r.stdout + r.stderr)
        got = json.loads(r.stdout)
        for body, kinds in WANTED.items():
            for kind, (code, bodies) in kinds.items():
                here = (kind, body, got[kind + " " + body])
                self.assertEqual((here[2]["code"], here[2]["bodies"]), (code, bodies), here)
                self.assertEqual((here[2]["details"], here[2]["message"]), (True, "gone: \u00e9%") if body == "fail" else (False, ""), here)
                if body != "wait":
                    self.assertEqual(here[2]["told"], "yes", here)
        self.assertEqual((got["cancelled"]["code"], got["cancelled"]["bodies"]), (1, ["echo hello"]))
        # The three calls whose deadline passed and the one that was cancelled reached the server as such.
        wait_for("four cancellations", lambda: read(os.path.basename(self.servers[server].log)).count("cancelled") >= self.cancelled[server] + 4)
        self.cancelled[server] += 4
        self.assertNotIn("never", read(os.path.basename(self.servers[server].log)))
        for s, name in ((outer, "far"), (inner, "app")):
            wait_for("no request left", lambda: s.stat("cluster.%s.upstream_rq_active" % name) == 0)
        # Compressed: the 300,000 bytes that were sent eight times took far less.
        self.assertLess(outer.stat("cluster.far.upstream_cx_rx_bytes_total"), 400_000)

    cancelled = {"C++": 0, "Python": 0}

    def test_cpp_to_cpp(self):
        self.check("C++", "C++")

    def test_cpp_to_python(self):
        self.check("C++", "Python")

    def test_python_to_cpp(self):
        self.check("Python", "C++")

    def test_python_to_python(self):
        self.check("Python", "Python")


if __name__ == "__main__":
    main()
