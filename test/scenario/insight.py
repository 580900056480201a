"""Promises about insight: counts that are exact, traces that join. The answers to why are in reasons.py."""

import json
import os
import time

from mesh import Unmet, expect, ok_of
from traffic import chaos, short


def edge(mesh, source, destination, window=60):
    for e in mesh.api("GET", "/api/v1/topology?window=%d" % window)["edges"]:
        if (e["source"], e["destination"]) == (source, destination):
            return e
    return None


def first_edge(mesh):
    """The first edge of a new caller is on the map in under 5 s, with both SPIFFE IDs"""
    w = mesh.run("newcomer", "v1", None, None, ["sleep", "infinity"])
    try:
        mesh.until(lambda: (w.state or {}).get("app"), 20, "the newcomer's sidecar is not ready")
        expect(ok_of(mesh.load("catalog", 1, "GET /items", connections=1, frm=w)()) == 1, "its request failed")
        start = time.monotonic()
        e = mesh.until(lambda: edge(mesh, "newcomer", "catalog"), 5, "no edge newcomer -> catalog after 5 s", every=0.05)
        seconds = time.monotonic() - start
        expect(e["mtls"] and e["tls_version"] == "TLSv1.3", "edge without mTLS: %s" % e)
        expect(e["source_identity"].endswith("/ns/default/sa/newcomer") and e["destination_identity"].endswith("/ns/default/sa/catalog"),
               "identities: %s %s" % (e["source_identity"], e["destination_identity"]))
        return "after %.1f s" % seconds
    finally:
        mesh.outer.signal(w.pid, 9)
        mesh.workloads.remove(w)


def open_edge(mesh):
    """A connection that stays open is on the map in under 5 s, and is one request once it has ended"""
    w = mesh.run("keeper", "v1", None, None, ["sleep", "infinity"])
    try:
        mesh.until(lambda: (w.state or {}).get("app"), 20, "the keeper's sidecar is not ready")
        start = time.monotonic()
        held = w.background(["timeout", "12", "redis-cli", "-h", "redis", "SUBSCRIBE", "news"], timeout=30)
        e = mesh.until(lambda: edge(mesh, "keeper", "redis"), 5, "no edge keeper -> redis after 5 s", every=0.05)
        seconds = time.monotonic() - start
        expect(e["open"] == 1 and e["requests"] == 0 and e["mtls"] and e["protocol"] == "tcp", "the edge: %s" % e)
        # The shop's own: cart keeps one connection to redis for as long as it lives.
        mesh.curl("-X", "POST", "http://frontend/cart?user=open&item=tea")
        mesh.until(lambda: (edge(mesh, "cart", "redis") or {"open": 0})["open"] > 0, 5, "no open connection cart -> redis after 5 s")
        held()
        mesh.until(lambda: (lambda x: x and x["requests"] == 1 and x["open"] == 0)(edge(mesh, "keeper", "redis")), 10,
                   lambda: "after its end: %s" % edge(mesh, "keeper", "redis"))
        return "after %.1f s" % seconds
    finally:
        mesh.outer.signal(w.pid, 9)
        mesh.workloads.remove(w)


def denial_on_edge(mesh):
    """A denial shows on the edge, with the policy that denied"""
    mesh.apply("apiVersion: weft/v1\nkind: Authorization\nmetadata: {name: catalog}\nspec:\n  action: DENY\n  rules:\n"
               "  - name: edge-check\n    from: [{services: [client]}]\n")
    mesh.await_push()
    expect(mesh.curl("http://catalog/items")[0] == 403, "not denied")
    e = mesh.until(lambda: (lambda x: x if x and x["denied"] else None)(edge(mesh, "client", "catalog")), 5, "no denial on the edge")
    expect(any("catalog" in d["reason"] for d in e["denials"]), "reasons: %s" % e["denials"])
    return e["denials"][0]["reason"]


def one_trace(mesh):
    """A request through three services is one joined trace with client and server spans of every hop"""
    mesh.curl("-X", "POST", "http://frontend/cart?user=trace&item=tea")  # something that pricing is asked about
    trace = os.urandom(16).hex()
    status, _, body = mesh.curl("-H", "traceparent: 00-%s-%s-01" % (trace, os.urandom(8).hex()), "http://frontend/checkout?user=trace")
    expect(status == 200, "%d %s" % (status, body[:100]))
    want = {("client", "client"), ("frontend", "server"), ("frontend", "client"), ("checkout", "server"), ("checkout", "client"),
            ("cart", "server"), ("pricing", "server")}

    def complete():
        code, t = mesh.api("GET", "/api/v1/traces/" + trace, ok=False)
        seen = {(h["service"], h["kind"]) for h in t.get("hops", [])} if code == 200 else set()
        return t if want <= seen else None

    t = mesh.until(complete, 6, lambda: "not joined: %s" % [(h["service"], h["kind"]) for h in
                                                            mesh.api("GET", "/api/v1/traces/" + trace, ok=False)[1].get("hops", [])])
    roots = [h for h in t["hops"] if h["parent"] < 0]
    expect(len(roots) == 1, "%d roots: %s" % (len(roots), [(h["service"], h["kind"]) for h in roots]))
    r = mesh.weft("trace", trace)
    expect(r.rc == 0 and "pricing server" in r.out and "|" in r.out, "weft trace: " + r.out + r.err)
    return "%d hops" % len(t["hops"])


RETRIED = """apiVersion: weft/v1
kind: Route
metadata: {name: catalog}
spec: {rules: [{name: retried, retry: {attempts: 2, on: [5xx]}}]}
"""


def exact_counts(mesh):
    """Edge counts equal the load generator's over 200,000 requests as fast as they go, with cancels, resets, retries and errors among them"""
    w = mesh.run("counter", "v1", None, None, ["sleep", "infinity"])
    try:
        mesh.until(lambda: (w.state or {}).get("app"), 20, "the counter's sidecar is not ready")
        mesh.apply(RETRIED)
        before = mesh.api("GET", "/api/v1/telemetry")
        chaos(mesh, "catalog", fail_percent=1, reset_percent=0.5)
        http = mesh.load("catalog", 120000, "GET /items", connections=32, cancel=0.5, frm=w, timeout=500)
        grpc = w.background([mesh.dir + "/bin/grpc_client", "unary", "--target", "pricing:50051", "--requests", "80000", "--bad-percent", "5"], timeout=500)
        counts, called = http(), json.loads(grpc().out)
        chaos(mesh, "catalog", fail_percent=0)
        sent = counts["sent"] + called["requests"]
        expect(called["codes"].get("3") == 4000, "gRPC codes: %s" % called["codes"])

        def edges():
            return [e for e in mesh.api("GET", "/api/v1/topology?window=300")["edges"]
                    if e["source"] == "counter" and e["destination"] in ("catalog", "pricing")]

        def seen():
            return sum(e["requests"] for e in edges())

        # The way from the sidecars to the store takes its time on a busy machine: wait as long as it moves.
        last, moved = -1, time.monotonic()
        while seen() != sent:
            now = seen()
            if now != last:
                last, moved = now, time.monotonic()
            if time.monotonic() - moved > 15:
                raise Unmet("sent %d, the edges say %d; %s; %s" % (sent, seen(), short(counts), mesh.api("GET", "/api/v1/telemetry")))
            time.sleep(0.5)
        after = mesh.api("GET", "/api/v1/telemetry")
        dropped = sum(after["dropped"].values()) - sum(before["dropped"].values())
        expect(dropped == 0, "%d events were dropped: %s" % (dropped, after))
        resets = sum(e["outcomes"]["reset"] for e in edges())
        expect(resets > 0, "no reset among them: %s" % edges())
        retried = sum(e["retries"] for e in edges())
        return "%d sent in %.0f s (%d cancelled, %d reset, %d retried, %d gRPC errors), %d counted, %d without detail" % (
            sent, counts["seconds"], counts["cancelled"], resets, retried, called["codes"]["3"], seen(),
            after["without_detail"] - before["without_detail"])
    finally:
        mesh.outer.signal(w.pid, 9)
        mesh.workloads.remove(w)


PROMISES = [first_edge, open_edge, denial_on_edge, one_trace, exact_counts]
