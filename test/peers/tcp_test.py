"""What is not HTTP: Redis through two sidecars, protocols that share a port, questions as a resolver sends them."""
import os, socket, struct, subprocess, time, unittest

from cases import *
from envoy_config import *
from loopback import *
import wire


def test_redis_through_two_sidecars_with_mutual_tls():
    need("redis-server", "redis-cli", "redis-benchmark")
    certs, port = Certs(), free_port()
    wait_port(port, start("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", TMP))
    server, client = certs.leaf("server", "URI:" + spiffe("cart")), certs.leaf("client", "URI:" + spiffe("web"))
    inner = Sidecar(static([listener("l", tcp_proxy("redis"), transport=tls(server, certs.ca, server=True, alpn=[], require_client_certificate=True))],
                           [cluster("redis", port)]))
    outer = Sidecar(static([listener("l", tcp_proxy("far"))], [cluster(
        "far", inner.port("l"), tls=tls(client, certs.ca, sans=[spiffe("cart")], sni="server"), connect_timeout="10s")]))
    at = ["-h", "127.0.0.1", "-p", str(outer.port("l"))]
    ask = lambda *words, **kw: run("redis-cli", *at, *words, **kw).stdout.strip()
    wait_for("redis answers", lambda: ask("ping") == "PONG")
    value = os.urandom(1 << 20).hex()
    assert ask("-x", "set", "k", input=value) == "OK"
    assert ask("get", "k") == value
    assert "errors: 0, replies: 20000" in ask("--pipe", input="INCR n\r\n" * 20000)
    assert ask("get", "n") == "20000"
    r = run("redis-benchmark", *at, "-n", "5000", "-c", "20", "-t", "get,set", "-d", "2000", "-q")
    assert r.returncode == 0, r.stdout + r.stderr


def test_server_first_http_and_tls_share_a_port():
    """One listener, permissive: mutual TLS, plaintext HTTP and a protocol whose server speaks first."""
    def talk(c, _):
        c.sendall(b"220 ready\r\n")
        c.sendall(b"you said " + c.recv(100))

    app, certs = wire.Backend(talk), Certs()
    server, client = certs.leaf("server", "URI:" + spiffe("cart")), certs.leaf("client", "URI:" + spiffe("web"))
    l = {"name": "l", "address": addr(0),
         "listener_filters": [named("tls", "filters.listener.tls_inspector.v3.TlsInspector"), named("http", "filters.listener.http_inspector.v3.HttpInspector")],
         "filter_chains": [{"filter_chain_match": {"transport_protocol": "tls"}, "filters": [tcp_proxy("app")],
                            "transport_socket": tls(server, certs.ca, server=True, alpn=[], require_client_certificate=True)},
                           {"filter_chain_match": {"transport_protocol": "raw_buffer"}, "filters": [tcp_proxy("app")]}]}
    port = Sidecar(static([l], [cluster("app", app.port)])).port("l")
    with wire.connect(port) as c:
        began = time.monotonic()
        assert wire.read_exactly(c, 11) == b"220 ready\r\n"  # we have said nothing yet
        assert time.monotonic() - began < 5
        c.sendall(b"HELO\r\n")
        assert wire.read_exactly(c, 15) == b"you said HELO\r\n"
    # Once it is known that the server speaks first, its clients hardly wait: 3 ms. (The first connection waited 300.)
    waits = []
    for _ in range(20):
        began = time.monotonic()
        with wire.connect(port) as c:
            assert wire.read_exactly(c, 11) == b"220 ready\r\n"
        waits.append(time.monotonic() - began)
    assert SANITIZED or sorted(waits)[len(waits) // 2] < 0.05, waits
    with wire.connect(port) as c:
        began = time.monotonic()
        c.sendall(b"HELO\r\n")  # not TLS, not HTTP: decided at once
        assert wire.read_exactly(c, 26) == b"220 ready\r\nyou said HELO\r\n"
        assert time.monotonic() - began < 5
    out = run("openssl", "s_client", "-connect", "127.0.0.1:%d" % port, "-ign_eof", "-cert", client[0], "-key", client[1], input="HELO\r\n",
              stderr=subprocess.STDOUT).stdout
    assert "220 ready" in out and "you said HELO" in out, out


class Dns(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        names = [{"name": "cart.default.mesh", "endpoint": {"address_list": {"address": ["240.64.0.1"]}}, "answer_ttl": "30s"}]
        table = named("dns", "filters.udp.dns_filter.v3.DnsFilterConfig", stat_prefix="mesh", server_config={"inline_dns_table": {"virtual_domains": names}})
        cls.port = free_port()
        Sidecar(static([{"name": "dns", "address": addr(cls.port, protocol="UDP"), "listener_filters": [table]}], []))

    @staticmethod
    def question(name, kind):
        return struct.pack(">HHHHHH", 4711, 0x100, 1, 0, 0, 0) + b"".join(bytes([len(x)]) + x for x in name.encode().split(b".")) + b"\0" + struct.pack(">HH", kind, 1)

    def ask(self, name, kind):
        """(code, number of answers, the whole reply)"""
        q = self.question(name, kind)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as c:
            c.settimeout(5)
            c.connect(("127.0.0.1", self.port))
            c.send(q)
            a = c.recv(4096)
        self.assertEqual(a[:2], q[:2])
        return a[3] & 15, struct.unpack(">H", a[6:8])[0], a

    def test_inline_table_over_udp(self):
        code, count, raw = self.ask("Cart.Default.mesh", 1)
        self.assertEqual((code, count, raw[-4:]), (0, 1, bytes([240, 64, 0, 1])))
        self.assertEqual(self.ask("cart.default.mesh", 28)[:2], (0, 0))
        self.assertEqual(self.ask("nosuch.mesh", 1)[0], 3)

    def test_tcp_on_the_same_port(self):
        q = self.question("cart.default.mesh", 1)
        with wire.connect(self.port, 5) as c:
            c.sendall(struct.pack(">H", len(q)) + q)
            a = wire.read_exactly(c, struct.unpack(">H", wire.read_exactly(c, 2))[0])
        self.assertEqual(a[-4:], bytes([240, 64, 0, 1]))


if __name__ == "__main__":
    main()
