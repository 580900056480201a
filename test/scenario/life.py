"""Promises about life and death: of applications, instances, and the server."""

import json
import time

from mesh import SHOP, expect, ok_of
from traffic import cluster_counter, failures, short


def app_killed(mesh):
    """SIGKILL of an application under load fails no GET; it is left out, and taken back when it returns"""
    victim = mesh.of("catalog")[0]
    load = mesh.load("catalog", 6000, "GET /items", connections=8, rate=1000)
    time.sleep(1.5)
    kill_and_await(mesh, victim)
    counts = load()
    expect(ok_of(counts) == 6000, lambda: failures(mesh, counts, "catalog"))
    served_by_both(mesh, "catalog", 10)


def posts_under_fire(mesh):
    """SIGKILL of an application loses no POST but those it was working on"""
    victim = mesh.of("cart", "v1")[0]
    connections = 8  # each has one request in flight at most
    load = mesh.load("cart", 5000, "POST /cart/$u?item=tea", connections=connections, rate=800)
    time.sleep(1.5)
    kill_and_await(mesh, victim)
    counts = load()
    lost = 5000 - ok_of(counts)
    expect(lost <= connections, lambda: "more than were in flight; " + failures(mesh, counts, "cart"))
    served_by_both(mesh, "cart", 10, "GET /cart/x")
    return "%d of 5000 lost, %d were in flight" % (lost, connections)


def kill_and_await(mesh, victim):
    """SIGKILL of its application: callers leave it out, weft run starts it again, callers take it back."""
    name, many = victim.service + ".default", len(mesh.active(victim.service))
    before = victim.state["app"]
    changes = cluster_counter(mesh.client, name, "membership_change") + cluster_counter(mesh.client, name, "outlier_detection.ejections_enforced_total")
    victim.kill_app()

    def left_out():
        now = cluster_counter(mesh.client, name, "membership_change") + cluster_counter(mesh.client, name, "outlier_detection.ejections_enforced_total")
        return now > changes

    mesh.until(left_out, 3, "callers neither ejected it nor were told", every=0.02)
    mesh.until(lambda: (victim.state or {}).get("app", before) != before, 10, "weft run did not start it again")
    mesh.until(lambda: len(mesh.active(victim.service)) == many, 15, "it did not become an endpoint again")
    mesh.until(lambda: cluster_counter(mesh.client, name, "membership_healthy") == many, 30,
               lambda: "its callers do not take it back: %s" % [l for l in mesh.client.admin("/clusters").splitlines() if name in l and "health_flags" in l])


def served_by_both(mesh, service, seconds, mix="GET /items"):
    def shares():
        seen = set()
        for w in mesh.of(service):
            total = 0
            for line in w.admin("/stats").splitlines():
                key, _, value = line.partition(": ")
                if key.startswith("cluster.inbound|") and key.endswith(".upstream_rq_total"):
                    total += int(value)
            seen.add((w.pid, total))
        return dict(seen)

    first = shares()

    def both():
        mesh.load(service, 100, mix, connections=4)()
        now = shares()
        return all(now[pid] > first.get(pid, 0) for pid in now)

    mesh.until(both, seconds, "one instance of %s gets no requests" % service)


def instance_killed(mesh):
    """SIGKILL of a whole instance under load fails no GET; a new one takes its place"""
    victim = mesh.of("catalog")[0]
    load = mesh.load("catalog", 8000, "GET /items", connections=8, rate=1000)
    time.sleep(1.5)
    victim.kill()
    counts = load()
    mesh.workloads.remove(victim)
    entry = next(e for e in SHOP if e[0] == "catalog")
    mesh.run(*entry)
    expect(ok_of(counts) == 8000, lambda: failures(mesh, counts, "catalog"))
    mesh.until(lambda: len(mesh.active("catalog")) >= 2, 20, "the new instance did not become an endpoint")
    served_by_both(mesh, "catalog", 10)


def sidecar_killed(mesh):
    """A crashed sidecar is started again; meanwhile nothing goes out in plaintext"""
    w = mesh.of("cart", "v1")[0]
    old = w.state["sidecar"]
    mesh.outer.signal(old, 9)
    r = w.run(["curl", "-sS", "-m", "2", "-o", "/dev/null", "http://redis:6379/"], timeout=10)
    expect(r.rc != 0, "traffic went out without the sidecar")
    mesh.until(lambda: w.state["sidecar"] != old, 10, "the sidecar was not started again")
    mesh.until(lambda: len(mesh.active("cart")) == 2, 20, "cart did not become an endpoint again")
    mesh.until(lambda: w.run(["curl", "-sS", "-m", "5", "http://127.0.0.1:8000/cart/x"]).out.count("items"), 10, "cart does not reach redis")


# For SECONDS: one Redis connection that stays and one that is made anew each time; prints what went wrong, nothing when all went well.
TCP = """
import socket, sys, time
def dial():
    s = socket.create_connection(("redis", 6379), 5)
    s.settimeout(5)
    return s
def ping(s):
    s.sendall(b"PING\\r\\n")
    got = s.recv(100)
    if got != b"+PONG\\r\\n":
        raise OSError("answered %r" % got)
end, done, kept = time.time() + float(sys.argv[1]), 0, dial()
while time.time() < end:
    ping(kept)
    fresh = dial()
    ping(fresh)
    fresh.close()
    done += 2
    time.sleep(.02)
print(done)
"""


def server_killed(mesh):
    """kill -9 of the server leaves traffic untouched; it comes back with everything, and sidecars reconnect"""
    mesh.apply("apiVersion: weft/v1\nkind: Traffic\nmetadata: {name: cart}\nspec:\n  connect_timeout: 3s\n")
    mesh.await_push()
    revision, history = mesh.revision, mesh.api("GET", "/api/v1/history")
    trace = "7731%028x" % time.time_ns()
    expect(mesh.curl("-H", "traceparent: 00-%s-00f067aa0ba902b7-01" % trace, "http://frontend/checkout?user=x")[0] == 200, "GET failed")
    mesh.until(lambda: len(mesh.api("GET", "/api/v1/traces/" + trace, ok=False)[1].get("hops", [])) >= 6, 10, "the trace did not arrive")
    counted = settled(mesh)

    seconds = 14
    loads = [mesh.load("frontend", 3000, "GET /,GET /cart?user=$u,POST /cart?user=$u&item=tea", connections=4, rate=3000 / seconds),
             mesh.load("cart", 1000, "POST /cart/$u?item=tea", connections=2, rate=1000 / seconds)]
    background = lambda *argv: mesh.client.background(list(argv), 60)
    unary = background(mesh.dir + "/bin/grpc_client", "unary", "--target", "pricing:50051", "--requests", "1400", "--rate", str(1400 / seconds))
    streams = background(mesh.dir + "/bin/grpc_client", "stream", "--target", "pricing:50051", "--streams", "10", "--seconds", str(seconds))
    sockets = background("python3", mesh.dir + "/bin/ws_client.py", "--host", "catalog", "--connections", "10", "--seconds", str(seconds))
    tcp = background("python3", "-c", TCP, str(seconds))
    time.sleep(1)
    mesh.kill_server()
    time.sleep(4)
    mesh.start_server()
    for load, want in zip(loads, (3000, 1000)):
        counts = load()
        expect(ok_of(counts) == want, "failed requests: %s" % short(counts))
    r = unary()
    expect(r.rc == 0 and json.loads(r.out)["codes"] == {"0": 1400}, "gRPC calls: " + r.out[-300:])
    for what, ended in (("gRPC streams", streams), ("WebSockets", sockets), ("Redis", tcp)):
        r = ended()
        expect(r.rc == 0, "%s: %s %s" % (what, r.out[-300:], r.err[-300:]))

    mesh.until(lambda: sum(s["connected"] for s in mesh.status()) > len(SHOP), 20, "sidecars did not reconnect")
    # What was there is there: policies, their revision and history, and what was measured.
    expect(mesh.weft("get", "traffic", "cart").rc == 0, "the policy is gone")
    expect(mesh.api("GET", "/api/v1/objects")["revision"] == revision, "another revision")
    expect(mesh.api("GET", "/api/v1/history") == history, "another history")
    mesh.await_push(revision, 10)
    expect(len(mesh.api("GET", "/api/v1/traces/" + trace)["hops"]) >= 6, "the trace of before is gone")
    now = settled(mesh)
    expect(now >= counted, "the edge forgot requests: %d, then %d" % (counted, now))
    again = mesh.load("frontend", 500, "GET /", connections=4)()
    expect(ok_of(again) == 500, "failed requests after the restart: %s" % short(again))
    mesh.until(lambda: edge_requests(mesh) >= now + 500, 10, lambda: "%d requests on the edge, 500 more than %d were sent" % (edge_requests(mesh), now))
    # And it goes on ruling.
    mesh.apply("apiVersion: weft/v1\nkind: Authorization\nmetadata: {name: catalog}\nspec:\n  action: DENY\n  rules:\n"
               "  - name: not-the-client\n    from: [{services: [client]}]\n")
    expect(mesh.revision > revision, "the next revision is %d after %d" % (mesh.revision, revision))
    mesh.await_push()
    expect(mesh.curl("http://catalog/items")[0] == 403, "a policy applied after the restart is not in force")


def edge_requests(mesh):
    edges = mesh.api("GET", "/api/v1/topology?window=3600")["edges"]
    return sum(e["requests"] for e in edges if (e["source"], e["destination"]) == ("client", "frontend"))


def settled(mesh):
    """The client's requests to frontend, when no more of them arrive."""
    seen = []

    def same():
        seen.append(edge_requests(mesh))
        return len(seen) > 3 and len(set(seen[-4:])) == 1

    mesh.until(same, 15, lambda: "the edge does not settle: %s" % seen[-4:], every=0.5)
    return seen[-1]


def late_sidecar(mesh):
    """A sidecar that starts while the server is down says so and waits"""
    token = mesh.token("late")
    mesh.kill_server()
    late = mesh.run("late", "v1", None, None, ["sleep", "infinity"], token=token)
    try:
        def said():
            with open(late.log, errors="replace") as f:
                return "waiting for the sidecar" in f.read()

        mesh.until(said, 10, "it says nothing")
        expect(late.pid not in mesh.outer.exited and not late.state["app"], "it did not wait")
        mesh.start_server()
        mesh.until(lambda: late.state and late.state["app"], 20, "it did not start when the server came")
    finally:
        if late.pid not in mesh.outer.exited:
            mesh.outer.signal(late.pid, 15)
            mesh.outer.wait(late.pid, 15)
        mesh.workloads.remove(late)


PROMISES = [app_killed, posts_under_fire, instance_killed, sidecar_killed, server_killed, late_sidecar]
