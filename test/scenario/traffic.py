"""Promises about traffic: it flows, by names, over every protocol; it survives changes and failures."""

import json
import time

from mesh import expect, ok_of


def protocols(mesh):
    """HTTP, gRPC, TCP and WebSocket work by plain names"""
    status, headers, body = mesh.curl("http://frontend/")
    expect(status == 200 and "items" in body, "GET frontend: %d %s" % (status, body[:200]))
    status, _, body = mesh.curl("-X", "POST", "http://frontend/cart?user=check&item=tea")
    expect(status == 200, "POST frontend/cart (cart, redis): %d %s" % (status, body[:200]))
    status, _, body = mesh.curl("http://frontend/checkout?user=check")
    expect(status == 200, "GET frontend/checkout (checkout, cart, pricing by gRPC): %d %s" % (status, body[:200]))
    status, _, body = mesh.curl("http://cart.default.mesh/cart/check")
    expect(status == 200, "GET cart.default.mesh: %d %s" % (status, body[:200]))
    r = mesh.client.run(["redis-cli", "-h", "redis", "PING"])
    expect(r.out.strip() == "PONG", "redis-cli PING: %s %s" % (r.out, r.err))
    r = mesh.client.run([mesh.dir + "/bin/grpc_client", "stream", "--target", "pricing:50051", "--streams", "2", "--seconds", "1"])
    expect(r.rc == 0, "gRPC streams: %s %s" % (r.out[-200:], r.err[-200:]))
    r = mesh.client.run(["python3", mesh.dir + "/bin/ws_client.py", "--host", "catalog", "--connections", "2", "--seconds", "1"])
    expect(r.rc == 0, "WebSockets: %s %s" % (r.out[-200:], r.err[-200:]))


def others_pass(mesh):
    """Destinations outside the mesh pass through and are counted"""
    server = mesh.outer.spawn(["python3", "-m", "http.server", "8099", "--bind", "10.77.0.1"], mesh.dir + "/logs/outside.log")
    try:
        mesh.until(lambda: mesh.curl("http://10.77.0.1:8099/")[0] == 200, 5, "GET 10.77.0.1:8099 does not pass")
        stats = mesh.client.admin("/stats/prometheus")
        lines = [l for l in stats.splitlines() if "passthrough" in l and "cx_total" in l]
        expect(any(float(l.split()[-1]) >= 1 for l in lines), "no counter of the passthrough cluster: %s" % lines)
    finally:
        mesh.outer.signal(server, 15)


def canary(mesh):
    """A 90/10 canary is in force everywhere in under 1 s, loses no request, splits within 2 %, and rolls back"""
    with open(mesh.dir + "/canary.yaml", "w") as f:
        f.write(CANARY)
    meanwhile = mesh.load("cart", 1500, "GET /cart/canary", connections=4, rate=500)  # traffic while it changes
    time.sleep(0.5)
    start = time.monotonic()
    r = mesh.weft("apply", "-f", mesh.dir + "/canary.yaml", "-o", "json")
    expect(r.rc == 0, "weft apply: " + r.err)
    revision = json.loads(r.out)["revision"]
    mesh.await_push(revision)
    seconds = time.monotonic() - start
    expect(seconds < 1, "it took %.2f s" % seconds)
    changed = meanwhile()
    expect(ok_of(changed) == 1500, "failed requests during the change: %s" % short(changed))
    counts = mesh.load("cart", 20000, "GET /cart/canary", connections=8)()
    expect(ok_of(counts) == 20000, "failed requests: %s" % short(counts))
    share = counts["served_by"].get("cart/v2", 0) / 20000
    expect(abs(share - 0.1) <= 0.02, "v2 got %.2f %%" % (share * 100))
    r = mesh.weft("rollback", str(revision - 1))
    expect(r.rc == 0, "weft rollback: " + r.err)
    mesh.await_push(revision + 1)
    after = mesh.load("cart", 2000, "GET /cart/canary", connections=8)()
    expect(ok_of(after) == 2000, "failed requests after the rollback: %s" % short(after))
    expect(after["served_by"].get("cart/v2", 0) > 600, "after the rollback: %s" % after["served_by"])
    return "in force after %.0f ms, v2 got %.2f %%" % (seconds * 1000, share * 100)


CANARY = """apiVersion: weft/v1
kind: Route
metadata: {name: cart}
spec:
  rules:
  - name: canary
    to:
    - {version: v1, weight: 90}
    - {version: v2, weight: 10}
"""


def streams(mesh):
    """100 WebSockets and 100 gRPC streams stay open through 20 changes and a certificate renewal"""
    ends = [mesh.client, *mesh.of("catalog"), *mesh.of("pricing")]
    sockets = mesh.client.background(["python3", mesh.dir + "/bin/ws_client.py", "--host", "catalog", "--connections", "100", "--seconds", "31"], 90)
    grpc = mesh.client.background([mesh.dir + "/bin/grpc_client", "stream", "--target", "pricing:50051", "--streams", "100", "--seconds", "31"], 90)
    time.sleep(2)
    before = [counter(w, "weft.mesh.renew") for w in ends]
    for i in range(20):
        mesh.apply("---\n".join("apiVersion: weft/v1\nkind: Route\nmetadata: {name: %s}\nspec:\n  rules:\n  - name: r%d\n    timeout: 0s\n"
                                "    to: [{version: v1, weight: %d}]\n" % (service, i, 10 + i) for service in ("catalog", "pricing")))
        mesh.await_push()
    mesh.until(lambda: all(counter(w, "weft.mesh.renew") > b for w, b in zip(ends, before)), 28, "not every certificate was renewed", every=1)
    s, g = sockets(), grpc()
    expect(s.rc == 0, "WebSockets: %s %s" % (s.out[-300:], s.err[-200:]))
    expect(g.rc == 0, "gRPC streams: %s %s" % (g.out[-300:], g.err[-200:]))


def counter(workload, name):
    for line in workload.admin("/stats").splitlines():
        key, _, value = line.partition(": ")
        if key == name:
            return int(value)
    return 0


def cluster_counter(workload, service, name):
    """Of the workload's clusters for a service ("cart.default"), all versions together: the unversioned one."""
    for line in workload.admin("/stats").splitlines():
        key, _, value = line.partition(": ")
        if key.startswith("cluster.outbound|") and "||%s." % service in key and key.endswith("||%s.%s" % (service, name)):
            return int(value)
    return 0


def breaker(mesh):
    """A flooded service opens its circuit breaker, and the answer says so"""
    mesh.apply("apiVersion: weft/v1\nkind: Traffic\nmetadata: {name: catalog}\nspec:\n  breakers: {max_requests: 3, max_pending_requests: 2, max_connections: 4}\n")
    mesh.await_push()
    chaos(mesh, "catalog", delay_ms=200)
    # Refusals are instant, so an unpaced flood would be over before anybody else could ask.
    flood = mesh.load("catalog", 1000, "GET /items", connections=60, rate=250)
    seen = {}

    def overloaded():
        status, headers, _ = mesh.curl("http://catalog/items")
        seen.update(status=status, headers=headers)
        return status == 503 and headers.get("x-envoy-overloaded") == "true"

    mesh.until(overloaded, 10, lambda: "last answer: %s" % seen)
    counts = flood()
    expect(counts["status"].get("503", 0) > 0 and ok_of(counts) > 0, "flood: %s" % short(counts))
    return "%d refused, %d served" % (counts["status"]["503"], ok_of(counts))


def retries(mesh):
    """Four retries with a fitting budget bring 30 % of 503 under 1 %; the default budget bounds the added load"""
    mesh.apply(RETRY + "---\napiVersion: weft/v1\nkind: Traffic\nmetadata: {name: catalog}\nspec:\n"
               "  retry_budget: {percent: 100, min_concurrency: 100}\n  outlier: {disabled: true}\n")
    mesh.await_push()
    chaos(mesh, "catalog", fail_percent=30)
    counts = mesh.load("catalog", 5000, "GET /items", connections=8)()
    failed = 5000 - ok_of(counts)
    expect(failed < 50, "%d of 5000 still failed: %s" % (failed, short(counts)))
    # The same retries under the default budget, against a service that is down.
    mesh.apply("apiVersion: weft/v1\nkind: Traffic\nmetadata: {name: catalog}\nspec:\n  outlier: {disabled: true}\n")
    mesh.await_push()
    chaos(mesh, "catalog", fail_percent=100)
    before = attempts(mesh)
    mesh.load("catalog", 4000, "GET /items", connections=40)()
    added = (attempts(mesh)[1] - before[1]) / 4000
    # 20 % of the active requests or three at once, whichever is more: 8 of 40, so at most a quarter on top.
    expect(added <= 0.3, "retries added %.0f %% load" % (added * 100))
    return "%d of 5000 failed; against a dead service retries add %.0f %%" % (failed, added * 100)


RETRY = """apiVersion: weft/v1
kind: Route
metadata: {name: catalog}
spec:
  rules:
  - name: retry
    retry: {attempts: 4, on: [5xx]}
"""


def attempts(mesh):
    """(requests, retries) of the client's sidecar towards catalog."""
    total = {"upstream_rq_total": 0.0, "upstream_rq_retry": 0.0}
    for line in mesh.client.admin("/stats").splitlines():
        key, _, value = line.partition(": ")
        if key.startswith("cluster.outbound|80|") and "|catalog." in key:
            for k in total:
                if key.endswith("." + k):
                    total[k] += float(value)
    return total["upstream_rq_total"], total["upstream_rq_retry"]


def chaos(mesh, service, **how):
    """Makes every instance of a Python service misbehave, from inside its namespace."""
    query = "&".join("%s=%s" % kv for kv in how.items())
    for w in mesh.of(service):
        r = w.run(["curl", "-sS", "-m", "5", "-X", "POST", "http://127.0.0.1:8000/_chaos?" + query])
        expect(r.rc == 0, "no chaos: " + r.err)


def short(counts):
    return {k: counts.get(k) for k in ("sent", "status", "failed", "failures", "cancelled")}


def failures(mesh, counts, service):
    """What was lost, and what the mesh itself says about one of them."""
    text = "failed requests: %s" % short(counts)
    for _ in range(20):
        traces = mesh.api("GET", "/api/v1/traces?errors=true&window=60&limit=200&service=" + service)["traces"]
        lost = [t for t in traces if t["service"] == "client" and t["status"] >= 500]
        if lost:
            status, w = mesh.api("GET", "/api/v1/why/" + lost[0]["trace_id"], ok=False)
            tries = [(a["outcome"], a["status"], a["detail"]) for a in (w.get("client") or {}).get("attempts", [])]
            return "%s; why: %s %s %s" % (text, w.get("sentence"), (w.get("client") or {}).get("response_flags"), tries)
        time.sleep(0.2)
    return text


PROMISES = [protocols, others_pass, canary, streams, breaker, retries]
