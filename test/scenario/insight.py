"""Promises about insight: counts that are exact, traces that join, and answers to why."""

import json
import os
import time

from mesh import Unmet, expect, ok_of
from traffic import CANARY, chaos, short


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


# ---- why

def asked(mesh, url, *args):
    """(status, answer of why) of one request."""
    trace = os.urandom(16).hex()
    status = mesh.curl("-H", "traceparent: 00-%s-%s-01" % (trace, os.urandom(8).hex()), *args, url)[0]
    return status, trace


def why(mesh, trace, cause, source=None, callee=True):
    last = {}

    def settled():
        code, w = mesh.api("GET", "/api/v1/why/" + trace, ok=False)
        last.clear()
        last.update(w)
        # The two ends report on their own: either may come first.
        return code == 200 and w["cause"] == cause and w["client"] and (not callee or w["server"])

    mesh.until(settled, 6, lambda: "expected %s: %s" % (cause, {k: last.get(k) for k in ("cause", "sentence", "error", "client")}))
    expect(last["client"]["attempts"] or cause in ("open_breaker", "no_healthy_endpoint", "fault_injected"), "no attempts")
    r = mesh.weft("why", trace)
    expect(r.rc == 0 and r.out.startswith(cause + ":"), "weft why: " + r.out[:200] + r.err)
    return dict(last)


def why_denied(mesh):
    """why: denied by policy, with the policy and its revision"""
    revision = mesh.apply("apiVersion: weft/v1\nkind: Authorization\nmetadata: {name: catalog}\nspec:\n  action: DENY\n  rules:\n"
                          "  - name: no-clients\n    from: [{services: [client]}]\n")["revision"]
    mesh.await_push(revision)
    status, trace = asked(mesh, "http://catalog/items")
    expect(status == 403, "status %d" % status)
    w = why(mesh, trace, "denied_by_policy")
    p = w["policy"] or {}
    expect((p.get("kind"), p.get("name")) == ("Authorization", "catalog") and p.get("revision") == revision, "policy: %s" % p)
    return w["sentence"]


def why_timeout(mesh):
    """why: timeout"""
    mesh.apply("apiVersion: weft/v1\nkind: Route\nmetadata: {name: catalog}\nspec:\n  rules:\n  - name: hasty\n    timeout: 0.2s\n")
    mesh.await_push()
    chaos(mesh, "catalog", delay_ms=1500)
    status, trace = asked(mesh, "http://catalog/items")
    expect(status == 504, "status %d" % status)
    return why(mesh, trace, "timeout", callee=False)["sentence"]


def why_refused(mesh):
    """why: connection refused"""
    # Says that it is ready, yet nobody listens.
    w = mesh.run("refuser", "v1", "8000:http@80", "none", ["sleep", "infinity"])
    try:
        mesh.until(lambda: mesh.active("refuser"), 20, "refuser is not an endpoint")
        mesh.until(lambda: asked(mesh, "http://refuser/")[0] == 503, 5, "it was not refused")
        status, trace = asked(mesh, "http://refuser/", "-X", "POST", "-d", "x")
        expect(status == 503, "status %d" % status)
        return why(mesh, trace, "connection_refused", callee=False)["sentence"]
    finally:
        mesh.outer.signal(w.pid, 9)
        mesh.workloads.remove(w)


def why_breaker(mesh):
    """why: open breaker"""
    mesh.apply("apiVersion: weft/v1\nkind: Traffic\nmetadata: {name: catalog}\nspec:\n  breakers: {max_requests: 2, max_pending_requests: 1, max_connections: 2}\n")
    mesh.await_push()
    chaos(mesh, "catalog", delay_ms=300)
    flood = mesh.load("catalog", 300, "GET /items", connections=40)
    trace = None
    end = time.monotonic() + 8
    while time.monotonic() < end:
        status, trace = asked(mesh, "http://catalog/items")
        if status == 503:
            break
    flood()
    expect(status == 503, "the breaker did not open")
    return why(mesh, trace, "open_breaker", callee=False)["sentence"]


def why_reset(mesh):
    """why: reset"""
    server = ("import socket,struct\ns=socket.create_server(('0.0.0.0',8000))\nwhile True:\n c,_=s.accept()\n d=c.recv(4096)\n"
              " c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii',1,0))\n c.close()")
    w = mesh.run("resetter", "v1", "8000:http@80", "tcp", ["python3", "-c", server])
    try:
        mesh.until(lambda: mesh.active("resetter"), 20, "resetter does not serve")
        mesh.until(lambda: asked(mesh, "http://resetter/")[0] == 503, 5, "not reset")
        status, trace = asked(mesh, "http://resetter/", "-X", "POST", "-d", "x")
        expect(status in (502, 503), "status %d" % status)
        return why(mesh, trace, "reset", callee=False)["sentence"]
    finally:
        mesh.outer.signal(w.pid, 9)
        mesh.workloads.remove(w)


def why_ejected(mesh):
    """why: no healthy endpoint after ejection"""
    mesh.apply("apiVersion: weft/v1\nkind: Traffic\nmetadata: {name: checkout}\nspec:\n  outlier: {consecutive_errors: 2, base_ejection: 20s, max_ejection_percent: 100}\n")
    mesh.await_push()
    victim = mesh.of("checkout")[0]
    mesh.outer.signal(victim.state["app"], 19)  # SIGSTOP: there, but silent
    try:
        mesh.apply("apiVersion: weft/v1\nkind: Route\nmetadata: {name: checkout}\nspec:\n  rules:\n  - name: hasty\n    timeout: 0.1s\n")
        mesh.await_push()
        seen = []
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            status, trace = asked(mesh, "http://checkout/quote?user=x")
            seen.append(status)
            if status == 503:
                break
        expect(seen and seen[-1] == 503, "it was not ejected: %s" % seen)
        return why(mesh, trace, "no_healthy_endpoint", callee=False)["sentence"]
    finally:
        mesh.outer.signal(victim.state["app"], 18)


def why_rollout(mesh):
    """why: a bad rollout"""
    broken = mesh.run("cart", "v3", "8000:http@80", "http:/healthz", ["python3", "{bin}/cart.py", "--version", "v3", "--redis", "127.0.0.1:1"])
    try:
        mesh.until(lambda: any(w["version"] == "v3" for w in mesh.active("cart")), 20, "v3 does not serve")
        mesh.apply(CANARY.replace("version: v2, weight: 10", "version: v3, weight: 50").replace("weight: 90", "weight: 50"))
        mesh.await_push()
        mesh.load("cart", 200, "GET /cart/x", connections=4)()
        trace = None
        for _ in range(30):
            status, trace = asked(mesh, "http://cart/cart/x")
            if status == 503:
                break
        expect(status == 503, "v3 was never asked")
        return why(mesh, trace, "bad_rollout", callee=False)["sentence"]
    finally:
        mesh.outer.signal(broken.pid, 9)
        mesh.workloads.remove(broken)


def why_identity(mesh):
    """why: wrong or missing identity"""
    # A service that dials with TLS and no certificate: the callee's side records what it refused.
    peer = mesh.active("catalog")[0]
    before = edge(mesh, "(no identity)", "catalog") or {"denied": 0}
    mesh.outer.run(["sh", "-c", "echo | timeout 2 openssl s_client -tls1_3 -connect %s:8000" % peer["address"]], timeout=10)
    e = mesh.until(lambda: (lambda x: x if x and x["denied"] > before["denied"] else None)(edge(mesh, "(no identity)", "catalog")), 6,
                   "the refusal is not on the map")
    return "%s" % e["denials"]


PROMISES = [first_edge, denial_on_edge, one_trace, why_denied, why_timeout, why_refused, why_breaker, why_reset, why_ejected,
            why_rollout, why_identity, exact_counts]
