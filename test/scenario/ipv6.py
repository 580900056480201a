"""The promise about IPv6: intercepted, meshed and refused as IPv4 is."""

from mesh import BIN, Skip, expect

PREFIX = "fd77:7731::"
# Dual stack, as most servers are: the sidecar reaches it over the IPv4 loopback.
SERVER = "python3 -m http.server --bind :: --directory /var/empty"


def six(mesh):
    """IPv6 is intercepted as IPv4 is: out through the mesh or past it, in with a certificate only, exclusions, undo"""
    if mesh.outer.run(["sh", "-c", "mkdir -p /var/empty && ip -6 addr add %s1/64 dev weft0 nodad" % PREFIX]).rc != 0:
        raise Skip("no IPv6 here")
    pids, names = [], []

    def spawn(enter, command, log):
        pids.append(mesh.outer.spawn(enter + ["sh", "-c", "exec " + command], "%s/logs/%s.log" % (mesh.dir, log)))

    def workload(name, last, flags, command):
        enter = mesh.namespace(name, PREFIX + last, "10.77.201." + last)
        names.append(name)
        pids.append(mesh.outer.spawn(
            enter + [BIN + "/tools/weft/weft", "run", "--no-netns", "--service", name, "--address", PREFIX + last, "--run-dir", mesh.dir + "/run-" + name,
                     "--join-token-file", mesh.token(name), "--xds-server", "10.77.0.1:15012", *flags, "--", *command],
            "%s/logs/%s.log" % (mesh.dir, name)))
        return enter

    def fetch(enter, url, *more):
        return mesh.outer.run(enter + ["curl", "-gsS", "-m", "3", "-o", "/dev/null", "-w", "%{http_code}", *more, url])

    try:
        spawn([], "%s %d" % (SERVER, 8099), "outside6")
        callee = workload("six-callee", "3", ["--port", "8000:http@80", "--ready", "tcp", "--exclude-inbound-ports", "8001"], ["sh", "-c", "exec " + SERVER + " 8000"])
        caller = workload("six-caller", "4", ["--exclude-outbound-cidrs", PREFIX + "5/128"], ["sleep", "infinity"])
        beyond = mesh.namespace("six-beyond", PREFIX + "5")
        names.append("six-beyond")
        spawn(beyond, "%s %d" % (SERVER, 8099), "beyond6")
        spawn(callee, "%s %d" % (SERVER, 8001), "excluded6")
        mesh.until(lambda: mesh.active("six-callee"), 20, "the callee did not come up")
        vip = next(s["vip"] for s in mesh.api("GET", "/api/v1/mesh/services")["services"] if s["name"] == "six-callee")
        admin = lambda path: mesh.outer.run(["sh", "-c", "curl -sS --unix-socket %s/run-six-caller/*/sidecar/admin.sock http://a%s" % (mesh.dir, path)]).out

        def passed():
            line = [l for l in admin("/stats").splitlines() if l.startswith("cluster.passthrough.upstream_cx_total: ")]
            return int(line[0].split(": ")[1]) if line else 0

        # Out: a mesh service whose only instance has an IPv6 address; the name is asked over IPv6, too.
        call = lambda: fetch(caller, "http://six-callee/", "--resolve", "six-callee:80:" + vip)
        mesh.until(lambda: call().out == "200", 10, lambda: "no answer from the IPv6 instance: %s" % (call(),))
        answer = mesh.outer.run(caller + ["python3", "-c", RESOLVE, PREFIX + "1", "six-callee"], timeout=10)
        expect(answer.out.strip() == vip, "DNS over IPv6: %s %s" % (answer.out, answer.err[-200:]))
        # Out: an address outside the mesh is captured, counted, and reached; an excluded one is not captured.
        before = passed()
        r = fetch(caller, "http://[%s1]:8099/" % PREFIX)
        expect(r.out == "200", "outside: %s" % (r,))
        expect(passed() == before + 1, "the connection to the outside was not captured: %d, then %d" % (before, passed()))
        r = fetch(caller, "http://[%s5]:8099/" % PREFIX)
        expect(r.out == "200" and passed() == before + 1, "excluded address: %s, captured: %s" % (r, passed() != before + 1))
        # In: plaintext is refused, TLS without a certificate too; an excluded port is open.
        r = fetch([], "http://[%s3]:8000/" % PREFIX)
        expect(r.rc != 0 and r.out == "000", "plaintext over IPv6 was answered: %s" % (r,))
        r = mesh.outer.run(["sh", "-c", "(printf 'GET / HTTP/1.0\\r\\n\\r\\n'; sleep 1) | timeout 3 openssl s_client -quiet -connect '[%s3]:8000' 2>&1" % PREFIX])
        expect("HTTP/1" not in r.out and ("alert" in r.out or "error" in r.out), "TLS without a certificate over IPv6: %s" % r.out[-200:])
        r = fetch([], "http://[%s3]:8001/" % PREFIX)
        expect(r.out == "200", "excluded inbound port: %s" % (r,))
        # By hand: applied twice the rules are the same, and undo leaves none.
        rules = lambda: mesh.outer.run(callee + ["nft", "list", "ruleset"]).out
        intercept = lambda *flags: mesh.must(mesh.outer.run(callee + [BIN + "/tools/weft/weft", "intercept", *flags]), "intercept")
        intercept("--exclude-inbound-ports", "8001")
        once = rules()
        intercept("--exclude-inbound-ports", "8001")
        expect("redirect" in once and rules() == once, "applied twice the rules differ")
        intercept("--undo")
        intercept("--undo")
        expect(rules().strip() == "", "undo left: " + rules())
        expect(fetch([], "http://[%s3]:8000/" % PREFIX).out == "200", "without rules the application is not reached")
    finally:
        for pid in pids:
            if pid not in mesh.outer.exited:
                mesh.outer.signal(pid, 15)
        for pid in pids:
            if mesh.outer.wait(pid, 10) is None:
                mesh.outer.kill(pid)
        for name in names:
            mesh.outer.run(["ip", "netns", "del", name])
        mesh.outer.run(["ip", "-6", "addr", "del", PREFIX + "1/64", "dev", "weft0"])


# Asks a resolver for an A record over UDP; prints the address.
RESOLVE = """
import socket, struct, sys
name = b"".join(bytes([len(l)]) + l.encode() for l in sys.argv[2].split(".")) + b"\\0"
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.settimeout(5)
s.connect((sys.argv[1], 53))
s.send(struct.pack(">6H", 7731, 0x100, 1, 0, 0, 0) + name + struct.pack(">2H", 1, 1))
print(socket.inet_ntoa(s.recv(512)[-4:]))
"""

PROMISES = [six]
