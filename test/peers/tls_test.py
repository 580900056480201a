"""Both of the sidecar's sides of TLS, against OpenSSL's client and server."""
import socket, subprocess, threading, unittest

from cases import *
from envoy_config import *
from loopback import *
import wire


class DownstreamTls(unittest.TestCase):
    """A listener that wants a SPIFFE identity, against OpenSSL's client."""

    @classmethod
    def setUpClass(cls):
        cls.certs = certs = Certs()
        server = certs.leaf("server", "URI:%s,DNS:server.test" % spiffe("cart"))
        cls.leaves = {"client": certs.leaf("client", "URI:" + spiffe("web")), "outsider": certs.leaf("outsider", "URI:" + spiffe("web", "prod")),
                      "two": certs.leaf("two", "URI:%s,URI:%s" % (spiffe("web"), spiffe("admin"))),
                      "foreign": Certs("other").leaf("foreign", "URI:" + spiffe("web"))}
        cls.app = Backend("hello")
        transport = tls(server, certs.ca, server=True, sans=[{"prefix": "spiffe://mesh/ns/default/"}], require_client_certificate=True)
        identity = {"forward_client_cert_details": "SANITIZE_SET", "set_current_client_cert_details": {"uri": True}}
        cls.s = Sidecar(static([listener("l", hcm([route("/", "app", timeout="60s")], **identity), transport=transport)], [cluster("app", cls.app.port)]))
        cls.port = cls.s.port("l")

    def client(self, who, *extra, input="GET /s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", port=None):
        argv = ["openssl", "s_client", "-connect", "127.0.0.1:%d" % (port or self.port), "-ign_eof", "-CAfile", self.certs.ca, "-verify_return_error"]
        if who:
            argv += ["-cert", self.leaves[who][0], "-key", self.leaves[who][1]]
        return run(*argv, *extra, input=input, stderr=subprocess.STDOUT).stdout

    def identity(self):
        return self.app.requests[-1].headers["x-forwarded-client-cert"]

    def test_mutual_tls_13_and_the_identity_is_forwarded(self):
        out = self.client("client")
        self.assertIn("hello:", out)
        self.assertIn("TLSv1.3", out)
        self.assertIn("URI=" + spiffe("web"), self.identity())

    def test_tls_12(self):
        out = self.client("client", "-tls1_2")
        self.assertIn("hello:", out)
        self.assertIn("Protocol  : TLSv1.2", out)

    def test_old_versions_and_weak_ciphers_are_refused(self):
        for extra in (["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], ["-tls1_2", "-cipher", "AES128-SHA:AES128-GCM-SHA256"],
                      ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256"]):
            self.assertNotIn("hello", self.client("client", *extra), extra)

    def test_no_certificate(self):
        def refused():
            return sum(int(x.rsplit(" ", 1)[1]) for x in self.s.admin("/stats")[1].splitlines() if ".ssl.fail_verify_no_cert" in x)

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
        cert, key = self.leaves["client"]
        p = subprocess.Popen(["openssl", "s_client", "-connect", "127.0.0.1:%d" % self.port, "-tls1_2", "-cert", cert, "-key", key],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        p.stdin.write(b"R\n")
        p.stdin.flush()
        out = p.stdout.read().decode("utf-8", "replace")  # the sidecar ends it: the input stays open
        p.stdin.close()
        self.assertIn("RENEGOTIATING", out)
        self.assertIn("alert no renegotiation", out.split("RENEGOTIATING")[1])
        self.assertNotEqual(p.wait(), 0)

    def test_plaintext_gets_no_application_byte(self):
        for hello in (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x16\x03\x01\x00\x05garba", b"\0" * 100):
            with wire.connect(self.port) as c:
                c.sendall(hello)
                c.shutdown(socket.SHUT_WR)
                got = wire.read_all(c)
            self.assertNotIn(b"HTTP", got)
            self.assertLessEqual(len(got), 7)  # an alert at most

    def test_one_byte_at_a_time(self):
        self.assertIn("hello:", self.client("client", port=Trickle(self.port).port))

    def test_resumption(self):
        self.client("client", "-sess_out", path("session"))
        out = self.client("client", "-sess_in", path("session"))
        self.assertIn("hello:", out)
        self.assertIn("Reused, TLSv1.3", out)
        self.assertIn("URI=" + spiffe("web"), self.identity())  # that of the first handshake

    def test_curl_over_tls_chooses_the_version(self):
        need("curl")
        cert, key = self.leaves["client"]
        for asked, got in (([], "2"), (["--http2"], "2"), (["--http1.1"], "1.1")):
            r = run("curl", "-sS", "-m", "20", "--cert", cert, "--key", key, "--cacert", self.certs.ca, "-w", "%{http_version}", *asked,
                    "--connect-to", "server.test:%d:127.0.0.1:%d" % (self.port, self.port), "https://server.test:%d/ok" % self.port)
            self.assertEqual((r.returncode, r.stdout), (0, "hello:" + got), r.stderr)
            self.assertEqual(self.app.requests[-1].path, "/ok")


class Trickle(wire.Backend):
    """Passes a connection on, byte by byte towards the server."""

    def __init__(self, target):
        self.target = target
        super().__init__(self.pass_on)

    def pass_on(self, a, _):
        b = wire.connect(self.target)

        def back():
            while piece := b.recv(65536):
                a.sendall(piece)
            a.shutdown(socket.SHUT_WR)

        threading.Thread(target=back, daemon=True).start()
        while piece := a.recv(65536):
            for i in range(len(piece)):
                b.sendall(piece[i:i + 1])
        b.shutdown(socket.SHUT_WR)


class UpstreamTls(unittest.TestCase):
    """Our client side against OpenSSL's server."""

    @classmethod
    def setUpClass(cls):
        cls.certs = Certs()
        cls.own = cls.certs.leaf("client", "URI:" + spiffe("web"))
        cls.leaves = {"server": cls.certs.leaf("server", "URI:" + spiffe("cart")), "foreign": Certs("other").leaf("foreign", "URI:" + spiffe("cart"))}

    def setUp(self):
        need("curl")
        self.addCleanup(end_all)

    def server(self, who, *extra):
        port, (cert, key) = free_port(), self.leaves[who]
        return wait_port(port, start("openssl", "s_server", "-accept", "127.0.0.1:%d" % port, "-www", "-cert", cert, "-key", key,
                                     "-CAfile", self.certs.ca, *extra))

    def ask(self, port, expected=spiffe("cart")):
        far = tls(self.own, self.certs.ca, sans=[expected], sni="server")
        s = Sidecar(static([listener("l", hcm([route("/", "up", timeout="60s")]))], [cluster("up", port, tls=far, connect_timeout="10s")]))
        return run("curl", "-sS", "-i", "http://127.0.0.1:%d/" % s.port("l")).stdout

    def test_mutual(self):
        out = self.ask(self.server("server", "-Verify", "1", "-verify_return_error"))
        self.assertIn("200", out.splitlines()[0])
        self.assertIn("TLSv1.3", out)

    def test_server_with_only_tls_12(self):
        self.assertIn("200", self.ask(self.server("server", "-tls1_2")).splitlines()[0])

    def test_wrong_identity_is_503(self):
        self.assertIn("503", self.ask(self.server("server"), spiffe("other")).splitlines()[0])

    def test_foreign_root_is_503(self):
        self.assertIn("503", self.ask(self.server("foreign")).splitlines()[0])


def test_passed_through_to_the_cluster_that_the_server_name_names():
    """sni_cluster: two OpenSSL servers behind one port, told apart by what the client asks for; the rest goes to tcp_proxy's own."""
    certs, ports, texts = Certs(), {}, {}
    for name in ("one.test", "two.test", "default"):
        cert, key = certs.leaf(name, "DNS:" + name)
        ports[name], texts[name] = free_port(), open(cert).read()
        wait_port(ports[name], start("openssl", "s_server", "-accept", "127.0.0.1:%d" % ports[name], "-www", "-cert", cert, "-key", key))
    l = {"name": "l", "address": addr(0), "listener_filters": [named("tls", "filters.listener.tls_inspector.v3.TlsInspector")],
         "filter_chains": [{"filters": [named("sni", "filters.network.sni_cluster.v3.SniCluster"), tcp_proxy("default")]}]}
    s = Sidecar(static([l], [cluster(name, port) for name, port in ports.items()]))

    def certificate(*server_name):
        out = run("openssl", "s_client", "-connect", "127.0.0.1:%d" % s.port("l"), "-CAfile", certs.ca, *server_name, input="GET / HTTP/1.0\r\n\r\n",
                  stderr=subprocess.STDOUT).stdout
        return next((name for name, text in texts.items() if text.split("-----END")[0] in out), out)

    assert certificate("-servername", "one.test") == "one.test"
    assert certificate("-servername", "TWO.test") == "two.test"
    assert certificate("-noservername") == "default"
    run("openssl", "s_client", "-connect", "127.0.0.1:%d" % s.port("l"), "-servername", "unknown.test")
    wait_for("no such cluster", lambda: s.stat("tcp.t.downstream_cx_no_route") == 1)


if __name__ == "__main__":
    main()
