"""Promises about life and death: of applications, instances, and the server."""

import time

from mesh import SHOP, expect, ok_of
from traffic import failures, short


def app_killed(mesh):
    """SIGKILL of an application under load fails no GET; it is left out, and taken back when it returns"""
    victim = mesh.of("catalog")[0]
    load = mesh.load("catalog", 6000, "GET /items", connections=8, rate=1000)
    time.sleep(1.5)
    before = victim.state["app"]
    victim.kill_app()
    counts = load()
    expect(ok_of(counts) == 6000, lambda: failures(mesh, counts, "catalog"))
    mesh.until(lambda: (victim.state or {}).get("app", before) != before, 10, "weft run did not start it again")
    mesh.until(lambda: len(mesh.active("catalog")) == 2, 15, "it did not become an endpoint again")
    served_by_both(mesh, "catalog", 10)


def served_by_both(mesh, service, seconds):
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
        mesh.load(service, 100, "GET /items", connections=4)()
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


def server_killed(mesh):
    """kill -9 of the server leaves traffic untouched; it comes back with everything, and sidecars reconnect"""
    mesh.apply("apiVersion: weft/v1\nkind: Traffic\nmetadata: {name: cart}\nspec:\n  connect_timeout: 3s\n")
    load = mesh.load("frontend", 3000, "GET /,GET /cart?user=$u", connections=4, rate=300)
    time.sleep(1)
    mesh.kill_server()
    time.sleep(4)
    mesh.start_server()
    counts = load()
    expect(ok_of(counts) == 3000, "failed requests: %s" % short(counts))
    expect(mesh.weft("get", "traffic", "cart").rc == 0, "the policy is gone")
    mesh.until(lambda: sum(s["connected"] for s in mesh.status()) >= len(SHOP), 20, "sidecars did not reconnect")
    again = mesh.load("frontend", 500, "GET /", connections=4)()
    expect(ok_of(again) == 500, "failed requests after the restart: %s" % short(again))


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


PROMISES = [app_killed, instance_killed, sidecar_killed, server_killed, late_sidecar]
