"""Promises about identity: mTLS between sidecars, nobody without a certificate, nobody where policy forbids."""

import json

from mesh import SHOP, expect
from traffic import counter
from wire import Capture


def on_the_wire(mesh):
    """A capture on the links shows no plaintext of the applications, and TLS 1.3 only"""
    # Sidecars that start again have no connection to reuse: every link's first handshake is in the picture.
    again = [w for w in mesh.workloads if w.state and w.service != "loadgen"]
    old = {w.pid: w.state["sidecar"] for w in again}
    marks = {what: "marker-%s-7731" % what for what in ("http-body", "http-header", "redis", "grpc", "websocket")}
    # The second capture is of the client's loopback, where the applications' bytes are still their own: what cannot be
    # found there would not be found on the links either.
    files = {"links": mesh.dir + "/links.pcap", "loopback": mesh.dir + "/loopback.pcap"}
    tcpdump = ["tcpdump", "-U", "-s", "0", "-B", "16384", "-w"]
    captures = [mesh.outer.spawn(tcpdump + [files["links"], "-i", "weft0", "tcp", "and", "not", "port", "15012"], mesh.dir + "/logs/links.log"),
                mesh.outer.spawn(["nsenter", "-t", str(mesh.client.state["app"]), "--net", "--", *tcpdump, files["loopback"], "-i", "lo", "tcp"],
                                 mesh.dir + "/logs/loopback.log")]
    for f in files:
        mesh.until(lambda: b"listening" in open("%s/logs/%s.log" % (mesh.dir, f), "rb").read(), 5, "tcpdump does not start")
    for w in again:
        mesh.outer.signal(old[w.pid], 9)
    mesh.until(lambda: all(w.state["sidecar"] != old[w.pid] for w in again), 20, "not every sidecar was started again")
    mesh.until(lambda: len(mesh.active()) == len(SHOP) and all(mesh.curl("http://frontend/" + p)[0] == 200 for p in ("", "cart", "checkout")),
               20, "the shop did not come back")
    for n in range(20):
        status, _, body = mesh.curl("-X", "POST", "-H", "x-note: " + marks["http-header"], "--data", marks["http-body"] * 20,
                                    "http://frontend/cart?user=wire&item=" + marks["http-body"])
        expect(status == 200, "POST: %d %s" % (status, body[:100]))
        expect(mesh.curl("http://frontend/checkout?user=wire")[0] == 200 and mesh.curl("http://catalog/items")[0] == 200, "GET failed")
        expect(marks["http-body"] in mesh.curl("http://cart/cart/wire")[2], "the cart lost its item")
    for n in range(20):  # each command is a connection of its own
        expect(mesh.client.run(["redis-cli", "-h", "redis", "SET", marks["redis"], marks["redis"]]).out.strip() == "OK", "redis-cli failed")
    for mode in (["unary", "--requests", "200"], ["stream", "--streams", "5", "--seconds", "1"]):
        r = mesh.client.run([mesh.dir + "/bin/grpc_client", *mode, "--target", "pricing:50051", "--item", marks["grpc"]])
        expect(r.rc == 0 and (mode[0] == "stream" or json.loads(r.out)["codes"] == {"0": 200}), "gRPC %s: %s" % (mode[0], r.out[-200:]))
    r = mesh.client.run(["python3", mesh.dir + "/bin/ws_client.py", "--host", "catalog", "--connections", "5", "--seconds", "1", "--text", marks["websocket"]])
    expect(r.rc == 0, "WebSockets: " + r.out[-200:])
    for pid in captures:
        mesh.outer.signal(pid, 2)
        mesh.outer.wait(pid, 5)
    links = Capture(open(files["links"], "rb").read())
    plain = open(files["loopback"], "rb").read()
    # gRPC's and HTTP/2's headers are compressed, so it is bodies and the connection's first words that would give it away.
    for secret in (*marks.values(), "HTTP/1.1", "PRI * HTTP/2.0", "x-served-by", "LRANGE", "LPUSH", "traceparent"):
        expect(secret.encode() not in links.raw, "%r is readable on the links" % secret)
    for what, secret in marks.items():
        expect(secret.encode() in plain, "%s is not even in the application's own bytes: nothing was looked for" % what)
    expect(not links.foreign(), links.foreign())
    expect(links.walked > 0.9 * len(links.raw) / 2, "only %d of %d bytes could be read as a stream" % (links.walked, len(links.raw)))
    seen = {(service_of(mesh, a), service_of(mesh, b)) for a, b in links.hellos}
    for link in LINKS:
        expect(link in seen, "no handshake from %s to %s; seen: %s" % (*link, sorted(seen)))
    total = sum(links.hellos.values())
    expect(total >= 40 and total >= links.connections, "%d handshakes for %d connections" % (total, links.connections))
    return "%d kB, %d connections, %d handshakes on %d links" % (len(links.raw) // 1000, links.connections, total, len(seen))


LINKS = [("client", s) for s in ("frontend", "catalog", "cart", "pricing", "redis")] + [
    ("frontend", "catalog"), ("frontend", "cart"), ("frontend", "checkout"), ("checkout", "cart"), ("checkout", "pricing"), ("cart", "redis")]


def service_of(mesh, address):
    return next((w.service for w in mesh.workloads if w.state and w.state["address"] == address), address)


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
    # Whether the caller speaks first or waits to be spoken to: it is told at once.
    before = counter(mesh.of("redis")[0], "listener.0.0.0.0_15006.rbac.denied")
    r = mesh.client.run(["python3", "-c", DIAL, "redis", "6379"], timeout=20)
    for n, line in enumerate(r.out.splitlines()):
        what, seconds = line.split()
        expect(what == "reset" and float(seconds) < 1, "denied TCP, %s: %s" % (("speaking", "silent")[n], line))
    expect(len(r.out.splitlines()) == 2, "denied TCP: %s %s" % (r.out, r.err))
    denials = counter(mesh.of("redis")[0], "listener.0.0.0.0_15006.rbac.denied") - before
    expect(denials == 2, "redis' sidecar counted %d denials" % denials)
    status, _, body = mesh.curl("http://cart/cart/x")
    expect(status == 200, "cart, which redis allows: %d %s" % (status, body[:100]))


def spelt(mesh):
    """A rule that names a path holds however the path is spelt"""
    mesh.apply("apiVersion: weft/v1\nkind: Authorization\nmetadata: {name: catalog}\nspec:\n  action: DENY\n  rules:\n"
               "  - name: no-items\n    from: [{services: [client]}]\n    to: [{paths: [\"/items*\"]}]\n")
    mesh.await_push()
    status, _, body = mesh.curl("http://catalog/healthz")
    expect(status == 200, "a path that no rule names: %d %s" % (status, body[:100]))
    spellings = ["/items", "//items", "/./items", "/x/../items", "/%69tems", "/x/%2e%2e/items", "/x/..%2fitems", "/x%2F..%2F%2fitems", "/%5citems", "/x\\..\\items", "/%2e%2f/items"]
    for path in spellings:
        status, _, body = mesh.curl("--path-as-is", "http://catalog" + path)
        expect(status == 403, "%s: %d %s" % (path, status, body[:100]))
    return "%d spellings" % len(spellings)


# Connects twice, once asking and once silent; prints how each connection ended and after how many seconds.
DIAL = """
import socket, sys, time
for words in (b"PING\\r\\n", b""):
    begun = time.time()
    try:
        s = socket.socket()
        s.settimeout(5)
        s.connect((sys.argv[1], int(sys.argv[2])))
        s.sendall(words)
        got = s.recv(100)
        how = "served" if got else "closed"
    except ConnectionResetError:
        how = "reset"
    except OSError as e:
        how = type(e).__name__
    print(how, "%.3f" % (time.time() - begun))
"""


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


PROMISES = [on_the_wire, refused, denied, spelt, fenced, stolen_token]
