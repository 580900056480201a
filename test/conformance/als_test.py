"""Entries of logs that go to servers, ours beside the real Envoy's: one configuration, the same requests, and entries that
are equal field by field once times, ports and ids are made anonymous."""
import os, re, unittest

import wire
from cases import *
from envoy_config import *
from log_server import *
from loopback import *
from envoy_test import ENVOY, REQUESTS, Backend, Proxy  # its Backend, not that of loopback

HEADERS = {"additional_request_headers_to_log": ["X-A", "x-many", "x-none", "content-type"],
           "additional_response_headers_to_log": ["X-Color", "x-many", "server", "x-none"],
           "additional_response_trailers_to_log": ["x-sum", "x-none"]}
TAGS = [{"tag": "text", "literal": {"value": "v"}}, {"tag": "header", "request_header": {"name": "X-A", "default_value": "none"}},
        {"tag": "gone", "request_header": {"name": "x-none"}}, {"tag": "set", "environment": {"name": "WEFT_SET"}},
        {"tag": "unset", "environment": {"name": "WEFT_NONE", "default_value": "d"}}]
NESTED = {"values": [{"key": "list", "value": {"array_value": {"values": [{"string_value": "%PROTOCOL%"}, {"string_value": "a%REQ(X-NONE)%b"}]}}},
                     {"key": "map", "value": {"kvlist_value": {"values": [{"key": "z", "value": {"string_value": "%RESPONSE_CODE%"}},
                                                                          {"key": "a", "value": {"string_value": "text"}}]}}}]}
# Figures of the wire: that they are there is compared, not how many; the form of a head is each side's own.
SIZES = re.compile(r"bytes|_port$|port_value$")
# (request, field) that differ on purpose; "*" stands for all requests.
ACCEPTED = {
    ("*", r"tls_properties\.tls_sni_hostname$"): "known without a TLS inspector too",
    ("malformed request", "."): "we keep what could be read of it, and the detail names the rule that was broken",
    ("HTTP/1.0", r"response_code_details$|downstream_(wire|header)_bytes_received$"): "the detail names the rule that was broken; its bytes are not counted",
    ("bad answer", r"upstream_wire_bytes_received$"): "a head that was refused is not counted",
    ("connect without route", r"request\.scheme$"): "a CONNECT has no scheme",
    ("tcp", r"response_flags|connection_termination_details"): "we say who ended a connection",
    ("tcp refused", r"response_flags|connection_termination_details|upstream_transport_failure_reason"): "we say why, and that a retry was made",
}


def accepted(what, field):
    return any(re.fullmatch(w if w != "*" else ".*", what) and re.search(f, field) for w, f in ACCEPTED)


def flat(value, at=""):
    """{"a.b[0].c": text}, anonymous."""
    if isinstance(value, dict):
        return {k: v for key, below in value.items() for k, v in flat(below, at + "." + key if at else key).items()}
    if isinstance(value, list):
        return {k: v for i, below in enumerate(value) for k, v in flat(below, "%s[%d]" % (at, i)).items()}
    name = at.rsplit(".", 1)[-1]
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID", str(value))
    if name in ("duration", "start_time") or name.startswith("time_"):
        text = "TIME"
    elif SIZES.search(name):
        text = "N"
    return {at: text}


@unittest.skipUnless(os.path.exists(ENVOY), "there is no Envoy binary to compare with")
class Entries(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        certs = Certs()
        cls.leaf = certs.leaf("both", "URI:spiffe://t/ns/default/sa/both", "/CN=both")
        cls.certs = (cls.leaf, certs.ca)
        envoy = [ENVOY, "--disable-hot-restart", "--file-flush-interval-msec", "20", "-l", "error"]
        cls.servers = [LogServer(), LogServer()]
        cls.proxies = [Proxy(name, argv, Backend(), cls.logs, cls.certs, [cluster("logs", server.port, h2=True)])
                       for (name, argv), server in zip((("envoy", envoy), ("ours", [SIDECAR])), cls.servers)]

    @staticmethod
    def logs(log):
        # A line in a file tells that the entry is on its way.
        line = file_log(log, log_format={"text_format_source": {"inline_string": "x\n"}})
        if log.endswith(("tcp", "dead")):
            return line + [als_log(log.rsplit(".", 1)[1], kind="Tcp", custom_tags=TAGS)]
        # In Envoy the streams of one log are as many as its workers: --concurrency 1.
        return line + [als_log("http", custom_tags=TAGS, headers=HEADERS),
                       otlp_log("otlp", body={"string_value": "%REQ(:METHOD)% %REQ(X-NONE)% %RESPONSE_FLAGS%"}, attributes=NESTED, custom_tags=TAGS,
                                resource_attributes={"values": [{"key": "zone_name", "value": {"string_value": "over"}}, {"key": "n", "value": {"int_value": "5"}}]})]

    def compare(self, what, theirs, ours, wrong):
        a, b = flat(theirs), flat(ours)
        for field in sorted(a.keys() | b.keys()):
            if a.get(field) != b.get(field) and not accepted(what, field):
                wrong.append("%-26s %-70s Envoy %-40r we %r" % (what, field, a.get(field), b.get(field)))

    def both(self, what, act, read, wrong):
        """The entry that act(proxy) makes at each proxy's server."""
        got = []
        for proxy, server in zip(self.proxies, self.servers):
            have = len(read(server))
            act(proxy)
            wait_for("%s: the entry of %s" % (what, proxy.name), lambda: len(read(server)) > have)
            got.append(read(server)[have])
        self.compare(what, *got, wrong)
        return got

    def test_http(self):
        wrong = []
        entries = lambda server: server.entries("http")
        for name, request, lines in REQUESTS:
            self.both(name, lambda p: p.ask(request, lines), entries, wrong)

        def curl(flags, scheme="http"):
            def act(p):
                at = "localhost:%d" % (p.secure if scheme == "https" else p.front)
                run("curl", "-sS", "-m", "10", "-H", "Host: a", "-A", "test", *flags, "--resolve", at + ":127.0.0.1", "%s://%s/ok?q=1" % (scheme, at))
            return act

        self.both("HTTP/2", curl(["--http2-prior-knowledge", "-d", "hello"]), entries, wrong)
        self.both("referer and more", curl(["-e", "http://from/", "-H", "X-Forwarded-For: 10.1.1.1", "-H", "x-a: \xff"]), entries, wrong)
        self.both("mutual TLS", curl(["--cert", self.leaf[0], "--key", self.leaf[1], "-k"], "https"), entries, wrong)
        for server in self.servers:
            wait_for("records of OTLP", lambda: len(server.records()) >= len(server.entries("http")))
        theirs, ours = ([dict(r[1]) for r in s.records()] for s in self.servers)
        self.assertEqual(len(theirs), len(ours))
        for (name, *_), a, b in zip(REQUESTS, theirs, ours):
            tags = len([t for t in TAGS if t["tag"] != "gone"])
            for record in (a, b):  # Envoy's order of tags is a hash's
                record["attributes"][-tags:] = sorted(record["attributes"][-tags:], key=lambda t: t["key"])
                record["time_unix_nano"] = "TIME"
            self.compare(name, a, b, wrong)
        resources = [[s["resource"] for s in server.said if "export" in s][0] for server in self.servers]
        self.assertEqual(*resources)
        for server in self.servers:
            self.assertEqual(1, len(server.streams("http")))
            identifier = next(s["identifier"] for s in server.said if "identifier" in s)
            self.assertEqual(("n", "c"), (identifier["node"]["id"], identifier["node"]["cluster"]))
        theirs, ours = (p.stats() for p in self.proxies)
        tcp = len([s for s in self.servers[1].said if "tcp" in s])  # Envoy counts those not
        for name in ("grpc_access_log.logs_written", "grpc_access_log.logs_dropped", "open_telemetry_access_log.logs_written", "open_telemetry_access_log.logs_dropped"):
            a, b = int(theirs["access_logs." + name]), int(ours["access_logs." + name]) - (tcp if name == "grpc_access_log.logs_written" else 0)
            if a != b:
                wrong.append("%s: Envoy %d, we %d" % (name, a, b))
        self.assertFalse(wrong, "\n" + "\n".join(wrong))

    def test_tcp(self):
        wrong = []
        for name, port, log in (("tcp", "tcp", "tcp"), ("tcp refused", "tcp_dead", "dead")):
            # The port was tried when the proxy started.
            for server in self.servers:
                wait_for("the first entry", lambda: log != "dead" or server.entries(log, "tcp"))

            def act(p):
                try:
                    with wire.connect(getattr(p, port)) as s:
                        s.sendall(b"GET /ok HTTP/1.1\r\nHost: a\r\n\r\n")
                        s.recv(1000)
                except ConnectionError:
                    pass

            self.both(name, act, lambda server: server.entries(log, "tcp"), wrong)
        self.assertFalse(wrong, "\n" + "\n".join(wrong))


if __name__ == "__main__":
    main()
