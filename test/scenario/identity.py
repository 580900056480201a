"""Promises about identity: mTLS between sidecars, nobody without a certificate, nobody where policy forbids."""

import struct

from mesh import SHOP, expect


def on_the_wire(mesh):
    """A capture on the links shows no plaintext of the applications, and TLS 1.3 only"""
    file = mesh.dir + "/links.pcap"
    capture = mesh.outer.spawn(["tcpdump", "-i", "weft0", "-U", "-w", file, "-s", "0", "tcp", "and", "not", "port", "15012"],
                               mesh.dir + "/logs/tcpdump.log")
    mesh.until(lambda: b"listening" in open(mesh.dir + "/logs/tcpdump.log", "rb").read(), 5, "tcpdump does not start")
    marker = "plaintext-marker-7731"
    for _ in range(5):
        mesh.curl("-X", "POST", "http://frontend/cart?user=%s&item=%s" % (marker, marker))
        mesh.curl("http://frontend/cart?user=" + marker)
    # New connections, so that handshakes are in the picture.
    mesh.client.run(["redis-cli", "-h", "redis", "SET", marker, marker])
    mesh.client.run([mesh.dir + "/bin/grpc_client", "stream", "--target", "pricing:50051", "--streams", "1", "--seconds", "1"])
    sidecar = mesh.of("checkout")[0]
    mesh.outer.signal(sidecar.state["sidecar"], 9)
    mesh.until(lambda: mesh.curl("http://frontend/checkout?user=x")[0] == 200, 20, "checkout's sidecar did not come back")
    mesh.outer.signal(capture, 2)
    mesh.outer.wait(capture, 5)
    with open(file, "rb") as f:
        raw = f.read()
    hellos = versions(raw)
    for secret in (marker.encode(), b"HTTP/1.1", b"x-served-by", b"LRANGE", b"LPUSH", b"traceparent", b"grpc-status"):
        expect(secret not in raw, "%r is readable on the links" % secret)
    expect(hellos.get("TLS 1.3"), "no TLS handshake in %d bytes" % len(raw))
    expect(set(hellos) == {"TLS 1.3"}, "handshakes seen: %s" % hellos)
    return "%d kB, %d handshakes" % (len(raw) // 1000, hellos["TLS 1.3"])


def versions(pcap):
    """What the ServerHellos in the capture chose: {"TLS 1.3": n, ...}."""
    out = {}
    at = 24
    while at + 16 <= len(pcap):
        size = struct.unpack("<I", pcap[at + 8:at + 12])[0]
        frame = pcap[at + 16:at + 16 + size]
        at += 16 + size
        if len(frame) < 54 or frame[12:14] != b"\x08\x00":
            continue
        ip = 14 + (frame[14] & 15) * 4
        data = frame[ip + (frame[ip + 12] >> 4) * 4:]
        if len(data) > 10 and data[0] == 0x16 and data[5] == 2:
            v = "TLS 1.3" if b"\x00\x2b\x00\x02\x03\x04" in data[:200] else "older"
            out[v] = out.get(v, 0) + 1
    return out


def refused(mesh):
    """Plaintext, and TLS without a client certificate, are refused at every meshed port"""
    tried = 0
    for w in mesh.active():
        port = w["ports"][0]["number"]
        r = mesh.outer.run(["curl", "-sS", "-m", "3", "-o", "/dev/null", "-w", "%{http_code}", "http://%s:%d/healthz" % (w["address"], port)])
        expect(r.rc != 0 and r.out.strip() in ("000", ""), "plaintext to %s:%d was answered: %s" % (w["service"], port, r.out))
        # TLS 1.3: the client is told after its own Finished; what counts is that no byte of an answer comes.
        r = mesh.outer.run(["sh", "-c", "(printf 'GET /healthz HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'; sleep 1) | timeout 3 openssl s_client "
                            "-quiet -tls1_3 -connect %s:%d 2>&1" % (w["address"], port)], timeout=10)
        expect("HTTP/1.1 2" not in r.out and ("alert" in r.out or "errno" in r.out or "error" in r.out),
               "TLS without a certificate to %s:%d: %s" % (w["service"], port, r.out[-200:]))
        tried += 1
    expect(tried >= len(SHOP), "only %d ports were there to try" % tried)
    return "%d ports" % tried


def denied(mesh):
    """An identity that a policy denies gets 403, a TCP one a reset; others are served"""
    mesh.apply("apiVersion: weft/v1\nkind: Authorization\nmetadata: {name: catalog}\nspec:\n  action: DENY\n  rules:\n"
               "  - name: not-the-client\n    from: [{services: [client]}]\n---\n"
               "apiVersion: weft/v1\nkind: Authorization\nmetadata: {name: redis}\nspec:\n  action: ALLOW\n  rules:\n"
               "  - name: carts-only\n    from: [{services: [cart]}]\n")
    mesh.await_push()
    status, _, body = mesh.curl("http://catalog/items")
    expect(status == 403, "denied GET: %d %s" % (status, body[:100]))
    status, _, body = mesh.curl("http://frontend/")
    expect(status == 200, "frontend, which is not denied: %d %s" % (status, body[:100]))
    r = mesh.client.run(["redis-cli", "-h", "redis", "PING"], timeout=10)
    expect("PONG" not in r.out, "denied redis-cli was served")
    status, _, body = mesh.curl("http://cart/cart/x")
    expect(status == 200, "cart, which redis allows: %d %s" % (status, body[:100]))


def fenced(mesh):
    """The application cannot read the sidecar's key or memory, reach its admin, change rules, bypass or impersonate"""
    w = mesh.of("cart")[0]
    s = w.state

    def cannot(what, script, allowed=""):
        r = w.run(["sh", "-c", script], user=True, timeout=10)
        expect(r.rc != 0 and (not allowed or allowed not in r.out), "the application can %s: %s" % (what, (r.out + r.err)[:200]))

    cannot("read the sidecar's memory", "cat /proc/%d/mem >/dev/null || cat /proc/%d/maps" % (s["sidecar"], s["sidecar"]))
    cannot("read the sidecar's environment", "cat /proc/%d/environ" % s["sidecar"])
    cannot("read the sidecar's descriptors", "ls /proc/%d/fd" % s["sidecar"])
    cannot("read the run directory", "cat %s/run/%s/sidecar/bootstrap.json || cat %s/run/%s/sidecar/identity/*" % (mesh.dir, s["id"], mesh.dir, s["id"]))
    cannot("call the admin", "curl -sS -m 2 --unix-socket %s http://a/certs" % s["admin_socket"])
    cannot("read the join tokens", "cat %s/tokens/*" % mesh.dir)
    cannot("read the rules", "nft list ruleset")
    cannot("change the rules", "nft flush ruleset")
    cannot("mark a packet", "python3 -c 'import socket; s=socket.socket(); s.setsockopt(socket.SOL_SOCKET, 36, 0x539)'")
    cannot("open a raw socket", "python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 6)'")
    cannot("kill the sidecar", "kill -9 %d" % s["sidecar"])
    cannot("change the address", "ip addr add 10.77.9.9/16 dev eth0")
    # Straight to another workload's application: the rules lead it through the sidecar, whose certificate says who calls.
    peer = mesh.active("catalog")[0]
    r = w.run(["curl", "-sS", "-m", "3", "-o", "/dev/null", "-w", "%{http_code}", "http://%s:8000/healthz" % peer["address"]], user=True)
    expect(r.out.strip() != "200", "plaintext straight to catalog's address was answered")


def stolen_token(mesh):
    """A join token is good once, and only for the service it names"""
    # The token with which cart joined is spent; a fresh one for cart does not make a redis.
    spent = mesh.of("cart")[0].argv
    path = spent[spent.index("--join-token-file") + 1]
    for service, token, what in (("cart", path, "a spent token"), ("redis", mesh.token("cart"), "cart's token")):
        w = mesh.run(service, "v1", None, None, ["sleep", "infinity"], token=token)
        try:
            mesh.outer.wait(w.pid, 4)
            state = w.state
            expect(not (state and state["app"]), "%s let somebody join as %s" % (what, service))
            expect(not any(state and x["id"] == state["id"] for x in mesh.active()), "%s made an endpoint of %s" % (what, service))
        finally:
            mesh.workloads.remove(w)
            if w.pid not in mesh.outer.exited:
                mesh.outer.signal(w.pid, 9)


PROMISES = [on_the_wire, refused, denied, fenced, stolen_token]
