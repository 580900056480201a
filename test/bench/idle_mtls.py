"""Memory of idle mTLS connections: `tools/bench idle-mtls`. For each proxy with the harness's mtls-in configuration: so many
connections, each of one request and then at rest, and what user memory (PSS) they added, divided. Every answer must be a 200."""
import argparse
import json
import os
import socket
import ssl
import statistics
import sys
import time

sys.dont_write_bytecode = True


def ask(tls, port, path):
    plain = socket.create_connection(("127.0.0.1", port), 10)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else each waits 40 ms for an acknowledgement
    s = tls.wrap_socket(plain, server_hostname="bench.local")
    s.sendall(("GET %s HTTP/1.1\r\nHost: bench.local\r\n\r\n" % path).encode())
    got = b""
    while b"\r\n\r\n" not in got or len(got.split(b"\r\n\r\n", 1)[1]) < 1024:
        more = s.recv(65536)
        if not more:
            break
        got += more
    if not got.startswith(b"HTTP/1.1 200 "):
        raise SystemExit("idle-mtls: not a 200: %r" % got[:80])
    return s


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--bench", required=True, help="the harness's folder")
    ap.add_argument("--proxies", default="sidecar,haproxy,nginx,envoy")
    ap.add_argument("--conns", type=int, default=2000)
    ap.add_argument("--reps", type=int, default=3)
    a = ap.parse_args()
    sys.path.insert(0, a.bench)
    import resource
    import tempfile
    import run
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    tmp = tempfile.mkdtemp(prefix="bench.")
    built = run.build(tmp)
    cert, key, ca = run.certs(tmp)
    base = dict(backend=built.backend, floor=built.floor, load=built.load, cert=cert, key=key, ca=ca, bulk=0)
    tls = ssl.create_default_context(cafile=ca)
    tls.check_hostname = False  # the certificate names bench.local; the chain is checked
    tls.load_cert_chain(cert, key)

    def once(ctx, pids, backend):
        first = ask(tls, ctx.front, run.PATH)
        time.sleep(1)
        before = run.mem(pids, "Pss")
        held = [ask(tls, ctx.front, run.PATH) for _ in range(a.conns)]
        time.sleep(2)
        after = run.mem(pids, "Pss")
        for s in [first, *held]:
            s.close()
        return (after - before) * run.MIB / a.conns

    print("| proxy | bytes for each of %d idle mTLS connections (min-max) |\n|---|---|" % a.conns)
    for name in a.proxies.split(","):
        got = [run.session(name, "mtls-in", base, base, once) for _ in range(a.reps)]
        if None not in got:
            print("| %s | %.0f (%.0f-%.0f) |" % (name, statistics.median(got), min(got), max(got)), flush=True)


if __name__ == "__main__":
    main()
