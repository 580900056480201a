"""Traffic of every kind through an instrumented sidecar: what tools/release makes its profile of.

  train.py SIDECAR

One pair of instrumented sidecars: plain HTTP/1.1 and HTTP/2, filters and an access log, mutual TLS between the two over HTTP/2
and over fresh HTTP/1.1 connections, TCP. Each kind gets about the same number of requests; one that fails ends it all. Profiles
are written when the sidecars end, where GCOV_PREFIX says; a third one is the backend, whose own does not count. Loopback, ports chosen by the kernel, a few seconds.
"""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.dont_write_bytecode = True
sys.path.insert(0, ROOT + "/test/support")
from envoy_config import any_, cluster, file_log, http_listener, listener, named, route, static, tcp_proxy, tls  # noqa: E402

REQUESTS, HANDSHAKES = 40000, 3000
BODY = "x" * 1024
PERCENT = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}


def free_ports(n):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def certificates(at):
    def openssl(*args):
        subprocess.run(("openssl", *args), check=True, cwd=at, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=ca")
    openssl("req", *key, "-keyout", "leaf.key", "-out", "leaf.csr", "-subj", "/CN=leaf")
    with open(at + "/extensions", "w") as f:
        f.write("subjectAltName=URI:spiffe://train/ns/default/sa/leaf\nextendedKeyUsage=serverAuth,clientAuth\nkeyUsage=digitalSignature\n")
    openssl("x509", "-req", "-in", "leaf.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "leaf.pem", "-days", "2",
            "-extfile", "extensions")
    return (at + "/leaf.pem", at + "/leaf.key"), at + "/ca.pem"


def mesh_filters():
    """Those that policies become: who may, how often, faults."""
    allow = {"permissions": [{"and_rules": {"rules": [{"header": {"name": ":method", "string_match": {"exact": "GET"}}},
                                                      {"url_path": {"path": {"prefix": "/four/"}}}]}}], "principals": [{"any": True}]}
    return [named("rbac", "filters.http.rbac.v3.RBAC", rules={"action": "ALLOW", "policies": {"train": allow}}),
            named("fault", "filters.http.fault.v3.HTTPFault"),
            named("limit", "filters.http.local_ratelimit.v3.LocalRateLimit", stat_prefix="limit", filter_enabled=PERCENT, filter_enforced=PERCENT,
                  token_bucket={"max_tokens": 10**8, "tokens_per_fill": 10**8, "fill_interval": "1s"})]


def main(binary, at):
    certificate, ca = certificates(at)
    back, far, far_http1, http1, filtered, http2, pair, fresh, tcp = free_ports(9)
    started = []

    def sidecar(name, config, **env):
        with open("%s/%s.json" % (at, name), "w") as f:
            json.dump(config, f)
        log = open("%s/%s.log" % (at, name), "w")
        started.append(subprocess.Popen([binary, "-c", f.name, "--concurrency", "1", "-l", "error"], stdout=log, stderr=log, env={**os.environ, **env}))

    def routes(to):
        return [route("/%s/" % word, to) for word in ("zero", "one", "two", "three", "four")]

    def server_tls(alpn):
        return tls(certificate, ca, server=True, alpn=[alpn], require_client_certificate=True)

    def once(name, port, **kw):  # a new connection for each request
        kind = "upstreams.http.v3.HttpProtocolOptions"
        return cluster(name, port, typed_extension_protocol_options={"envoy.extensions." + kind: any_(
            kind, explicit_http_config={"http_protocol_options": {}}, common_http_protocol_options={"max_requests_per_connection": 1})}, **kw)

    answer = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": BODY}}}
    sidecar("back", static([http_listener(back, [answer])], []), GCOV_PREFIX=at + "/unwanted")
    sidecar("far", static(
        [http_listener(far, routes("back"), server_tls("h2")), http_listener(far_http1, routes("back"), server_tls("http/1.1"))],
        [cluster("back", back)]))
    sidecar("near", static(
        [http_listener(http1, routes("back")), http_listener(http2, routes("back-h2")), http_listener(pair, routes("far")),
         http_listener(fresh, routes("far-once")), listener("tcp", tcp_proxy("back"), tcp),
         http_listener(filtered, routes("back"), filters=mesh_filters(), access_log=file_log(at + "/access.log"))],
        [cluster("back", back), cluster("back-h2", back, h2=True), cluster("far", far, h2=True, tls=tls(certificate, ca)),
         once("far-once", far_http1, tls=tls(certificate, ca))]))

    def load(what, port, *flags, n=REQUESTS):
        out = subprocess.run(["h2load", "-t1", "-n%d" % n, *flags, "http://127.0.0.1:%d/four/items" % port], stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True, timeout=300).stdout
        good = re.search(r"status codes: (\d+) 2xx", out)
        if not good or int(good.group(1)) != n:
            raise SystemExit("train: %s: not every request was answered well\n%s" % (what, out))
        print("  %-45s %d requests" % (what, n), flush=True)

    try:
        for port in (back, far, far_http1, http1, filtered, http2, pair, fresh, tcp):
            deadline = time.time() + 30
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    dead = [p for p in started if p.poll() is not None]
                    if dead or time.time() > deadline:
                        raise SystemExit("train: a sidecar does not start:\n" + open("%s/%s.log" % (at, ("back", "far", "near")[started.index(dead[0])] if dead else "near")).read())
                    time.sleep(.02)
        h1, h2 = ("--h1", "-c64"), ("-c16", "-m32")
        load("HTTP/1.1", http1, *h1)
        load("HTTP/1.1, filters and an access log", filtered, *h1)
        load("HTTP/1.1 over TCP", tcp, *h1)
        load("HTTP/2 to HTTP/1.1", http1, *h2)
        load("HTTP/2 to HTTP/2", http2, *h2)
        load("HTTP/1.1 through the pair, mTLS and HTTP/2", pair, *h1)
        load("HTTP/2 through the pair", pair, *h2)
        load("handshakes", fresh, "--h1", "-c16", n=HANDSHAKES)
    finally:
        for p in reversed(started):
            p.send_signal(signal.SIGTERM)
        for p in started:
            try:
                p.wait(30)
            except subprocess.TimeoutExpired:
                p.kill()
                raise SystemExit("train: a sidecar did not end")


if __name__ == "__main__":
    folder = tempfile.mkdtemp(prefix="weft-train.")
    try:
        main(sys.argv[1], folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
