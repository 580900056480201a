"""Promises about why: for every cause the sentence, both ends' view, every attempt, and the policy with its revision."""

import os
import re
import time

from insight import edge
from mesh import BIN, expect
from traffic import CANARY, RETRY, chaos


def asked(mesh, url, *args):
    """(status, trace id) of one request."""
    trace = os.urandom(16).hex()
    status = mesh.curl("-H", "traceparent: 00-%s-%s-01" % (trace, os.urandom(8).hex()), *args, url)[0]
    return status, trace


def apply(mesh, text):
    """Applies it, waits until it is in force everywhere; the revision."""
    revision = mesh.apply("apiVersion: weft/v1\n" + text)["revision"]
    mesh.await_push(revision)
    return revision


def why(mesh, trace, cause, outcomes=None, policy=None, callee=True, caller=True, words=()):
    """The answer for a trace: its cause, what the caller tried (outcome of every attempt), who decided (kind, name,
    revision), whether each end saw it, and words of its sentence. The command line says the same."""
    last = {}

    def settled():
        code, w = mesh.api("GET", "/api/v1/why/" + trace, ok=False)
        last.clear()
        last.update(w)
        # The two ends report on their own: either may come first.
        return code == 200 and w["cause"] == cause and (not caller or w["client"]) and (not callee or w["server"])

    mesh.until(settled, 6, lambda: "expected %s: %s" % (cause, {k: last.get(k) for k in ("cause", "sentence", "error", "client", "server")}))
    w = dict(last)
    evidence = " ".join(w["evidence"])
    if caller:
        tried = [a["outcome"] for a in w["client"]["attempts"]]
        expect(tried and all(tried), "attempts: %s" % w["client"]["attempts"])
        if outcomes is not None:
            expect(tried == outcomes, "outcomes of the attempts: %s" % tried)
        expect("Caller's view (%s)" % w["client"]["workload"] in evidence, "no view of the caller: " + evidence)
        for n in range(len(tried)):
            expect("Attempt %d " % (n + 1) in evidence, "attempt %d is not told: %s" % (n + 1, evidence))
    else:
        expect(w["client"] is None and "The caller has no view of it" in evidence, "the caller's view: %s; %s" % (w["client"], evidence))
    if callee:
        expect("Callee's view (%s)" % w["server"]["workload"] in evidence, "no view of the callee: " + evidence)
    else:
        expect(w["server"] is None and "The callee has no view of it" in evidence, "the callee's view: %s; %s" % (w["server"], evidence))
    p = w["policy"] or {}
    if policy:
        expect((p.get("kind"), p.get("name"), p.get("revision")) == policy, "policy: %s; %s" % (p, w["sentence"]))
        expect("%s %s" % policy[:2] in w["decided_by"] and "revision %d" % policy[2] in w["decided_by"], "decided by: %s" % w["decided_by"])
        expect(p.get("text"), "no text of the policy")
    for word in words:
        expect(word in w["sentence"], "%r is not in: %s" % (word, w["sentence"]))
    # Others' requests are still coming in: the command line is held against an answer from before it or after it.
    answers = ["%s: %s" % (cause, w["sentence"])]
    r = mesh.weft("why", trace)
    again = mesh.api("GET", "/api/v1/why/" + trace)
    answers.append("%s: %s" % (again["cause"], again["sentence"]))
    expect(r.rc == 0 and r.out.startswith(tuple(answers)), "weft why: %s%s, not %s" % (r.out[:300], r.err, answers))
    for word in (["revision %d" % policy[2]] if policy else []) + ["caller", "callee"] + [a["endpoint"] for a in (w["client"] or {}).get("attempts", [])]:
        expect(word in r.out, "weft why does not say %r: %s" % (word, r.out))
    return w


def why_denied(mesh):
    """why: denied by policy, with the policy, its rule and its revision"""
    revision = apply(mesh, "kind: Authorization\nmetadata: {name: catalog}\nspec:\n  action: DENY\n  rules:\n"
                           "  - name: no-clients\n    from: [{services: [client]}]\n")
    status, trace = asked(mesh, "http://catalog/items")
    expect(status == 403, "status %d" % status)
    w = why(mesh, trace, "denied_by_policy", ["ok"], ("Authorization", "catalog", revision), words=["no-clients", "/ns/default/sa/client", "GET /items"])
    expect(w["policy"]["rule"] == "no-clients", "rule: %s" % w["policy"])
    return w["sentence"]


def why_timeout(mesh):
    """why: timeout, with the Route that set it"""
    revision = apply(mesh, "kind: Route\nmetadata: {name: catalog}\nspec:\n  rules:\n  - name: hasty\n    timeout: 0.2s\n")
    chaos(mesh, "catalog", delay_ms=1500)
    status, trace = asked(mesh, "http://catalog/items")
    expect(status == 504, "status %d" % status)
    w = why(mesh, trace, "timeout", ["timeout"], ("Route", "catalog", revision), words=["request timeout of Route catalog, revision %d" % revision])
    expect(150_000 < w["client"]["attempts"][0]["duration_us"] < 1_000_000, "the attempt took %d us" % w["client"]["attempts"][0]["duration_us"])
    return w["sentence"]


def why_refused(mesh):
    """why: connection refused, by the application behind the callee's sidecar"""
    # Says that it is ready, yet nobody listens.
    w = mesh.run("refuser", "v1", "8000:http@80", "none", ["sleep", "infinity"])
    try:
        mesh.until(lambda: mesh.active("refuser"), 20, "refuser is not an endpoint")
        mesh.until(lambda: asked(mesh, "http://refuser/")[0] == 503, 5, "it was not refused")
        status, trace = asked(mesh, "http://refuser/", "-X", "POST", "-d", "x")
        expect(status == 503, "status %d" % status)
        answer = why(mesh, trace, "connection_refused", words=["application of refuser", "127.0.0.1:8000", "nothing listens"])
        expect([a["outcome"] for a in answer["server"]["attempts"]][-1] == "connect_refused", "the callee's attempts: %s" % answer["server"]["attempts"])
        return answer["sentence"]
    finally:
        mesh.outer.signal(w.pid, 9)
        mesh.workloads.remove(w)


def why_breaker(mesh):
    """why: open breaker, with the Traffic policy that set the limit"""
    revision = apply(mesh, "kind: Traffic\nmetadata: {name: catalog}\nspec:\n"
                           "  breakers: {max_requests: 2, max_pending_requests: 1, max_connections: 2}\n")
    chaos(mesh, "catalog", delay_ms=300)
    flood = mesh.load("catalog", 1000, "GET /items", connections=40, rate=250)  # paced: refusals are instant
    status, trace = 0, None
    end = time.monotonic() + 8
    while status != 503 and time.monotonic() < end:
        status, trace = asked(mesh, "http://catalog/items")
    flood()
    expect(status == 503, "the breaker did not open")
    return why(mesh, trace, "open_breaker", ["overflow"], ("Traffic", "catalog", revision), callee=False, words=["circuit breaker for catalog"])["sentence"]


def why_budget(mesh):
    """why: an exhausted retry budget is told apart from an open breaker"""
    revision = mesh.apply(RETRY + "---\napiVersion: weft/v1\nkind: Traffic\nmetadata: {name: catalog}\nspec:\n"
                          "  outlier: {disabled: true}\n  retry_budget: {percent: 5, min_concurrency: 1}\n")["revision"]
    mesh.await_push(revision)
    chaos(mesh, "catalog", fail_percent=100)
    flood = mesh.load("catalog", 4000, "GET /items", connections=40)
    traces = [asked(mesh, "http://catalog/items")[1] for _ in range(10)]
    flood()

    def stopped():
        for trace in traces:
            code, w = mesh.api("GET", "/api/v1/why/" + trace, ok=False)
            if code == 200 and w["client"] and w["client"]["attempts"][-1]["not_retried"] == "retry_budget":
                return trace
        return None

    trace = mesh.until(stopped, 6, "none of ten requests ran out of the budget")
    return why(mesh, trace, "application_error", policy=("Traffic", "catalog", revision),
               words=["Retries stopped: the retry budget of 5 % was spent"])["sentence"]


def why_reset(mesh):
    """why: reset, by the application behind the callee's sidecar"""
    server = ("import socket,struct\ns=socket.create_server(('0.0.0.0',8000))\nwhile True:\n c,_=s.accept()\n d=c.recv(4096)\n"
              " c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii',1,0))\n c.close()")
    w = mesh.run("resetter", "v1", "8000:http@80", "tcp", ["python3", "-c", server])
    try:
        mesh.until(lambda: mesh.active("resetter"), 20, "resetter does not serve")
        mesh.until(lambda: asked(mesh, "http://resetter/")[0] == 503, 5, "not reset")
        status, trace = asked(mesh, "http://resetter/", "-X", "POST", "-d", "x")
        expect(status in (502, 503), "status %d" % status)
        answer = why(mesh, trace, "reset", words=["application of resetter", "cut the connection"])
        expect([a["outcome"] for a in answer["server"]["attempts"]][-1] == "reset", "the callee's attempts: %s" % answer["server"]["attempts"])
        return answer["sentence"]
    finally:
        mesh.outer.signal(w.pid, 9)
        mesh.workloads.remove(w)


def why_ejected(mesh):
    """why: no healthy endpoint after ejection: which instance, when, why, until when, by which Traffic policy"""
    revision = apply(mesh, "kind: Traffic\nmetadata: {name: checkout}\nspec:\n"
                           "  outlier: {consecutive_errors: 2, base_ejection: 20s, max_ejection_percent: 100}\n---\n"
                           "apiVersion: weft/v1\nkind: Route\nmetadata: {name: checkout}\nspec:\n  rules:\n  - name: hasty\n    timeout: 0.1s\n")
    victim = mesh.of("checkout")[0]
    instance = victim.state["id"]
    mesh.outer.signal(victim.state["app"], 19)  # SIGSTOP: there, but silent
    try:
        seen = []
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and 503 not in seen:
            status, trace = asked(mesh, "http://checkout/quote?user=x")
            seen.append(status)
        expect(seen and seen[-1] == 503, "it was not ejected: %s" % seen)
        w = why(mesh, trace, "no_healthy_endpoint", ["no_healthy_host"], ("Traffic", "checkout", revision), callee=False,
                words=["ejected its only instance", instance, "after 2 timeouts in a row", "until "])
        out = w["client"]["attempts"][0]["ejections"]
        expect([(e["workload"], e["errors"], e["kinds"], e["rule"]) for e in out] == [(instance, 2, "timeout", "consecutive_local_origin_failure")],
               "ejections: %s" % out)
        expect(19_000 < out[0]["until_ms"] - out[0]["at_ms"] < 21_000 and abs(out[0]["at_ms"] / 1000 - time.time()) < 15, "times: %s" % out)
        return w["sentence"]
    finally:
        mesh.outer.signal(victim.state["app"], 18)


def why_rollout(mesh):
    """why: a bad rollout, with the Route that sends it weight"""
    broken = mesh.run("cart", "v3", "8000:http@80", "http:/healthz", ["python3", "{bin}/cart.py", "--version", "v3", "--redis", "127.0.0.1:1"])
    try:
        mesh.until(lambda: any(w["version"] == "v3" for w in mesh.active("cart")), 20, "v3 does not serve")
        revision = mesh.apply(CANARY.replace("version: v2, weight: 10", "version: v3, weight: 50").replace("weight: 90", "weight: 50"))["revision"]
        mesh.await_push(revision)
        mesh.load("cart", 200, "GET /cart/x", connections=4)()
        status, trace = 0, None
        for _ in range(30):
            status, trace = asked(mesh, "http://cart/cart/x")
            if status == 503:
                break
        expect(status == 503, "v3 was never asked")
        w = why(mesh, trace, "bad_rollout", None, ("Route", "cart", revision), words=["Version v3 of cart is broken"])
        expect(all(a["version"] == "v3" for a in w["client"]["attempts"]), "attempts: %s" % w["client"]["attempts"])
        expect(w["server"]["version"] == "v3" and w["server"]["status"] == 503, "the callee's view: %s" % w["server"])
        return w["sentence"]
    finally:
        mesh.outer.signal(broken.pid, 9)
        mesh.workloads.remove(broken)


def newest_refusal(mesh, destination, reason, act):
    """Does something that `destination` refuses; the id of that refusal on the map."""
    def examples():
        e = edge(mesh, "(no identity)", destination) or {"denials": []}
        return next((d["examples"] for d in e["denials"] if d["reason"] == reason), [])

    before = examples()
    act()
    return mesh.until(lambda: next((i for i in examples() if i not in before), None), 6, lambda: "the refusal is not on the map: %s" % examples())


def why_missing_identity(mesh):
    """why: missing identity: plaintext, or TLS without a certificate; from where, what was missing, who requires it"""
    peer = mesh.active("catalog")[0]
    # A process in the client's namespace that passes its own sidecar by (it may: it is root and marks its packets).
    plain = ("import socket\ns=socket.socket()\ns.setsockopt(socket.SOL_SOCKET, 36, 0x539)\ns.settimeout(2)\ns.connect(('%s', 8000))\n"
             "s.sendall(b'GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')\ntry: s.recv(1)\nexcept OSError: pass" % peer["address"])
    id = newest_refusal(mesh, "catalog", "plaintext", lambda: mesh.client.run(["python3", "-c", plain]))
    w = why(mesh, id, "missing_identity", caller=False,
            words=["workload %s of service client.default" % mesh.client.state["id"], "spoke plaintext", "default mode STRICT (no MeshTls policy applies)"])
    first = w["sentence"]
    expect(w["server"]["workload"] == peer["id"] and w["server"]["downstream_address"], "the callee's view: %s" % w["server"])
    # TLS without a certificate, from an address nobody registered, under a policy.
    revision = apply(mesh, "kind: MeshTls\nmetadata: {name: catalog}\nspec: {mode: STRICT}\n")
    id = newest_refusal(mesh, "catalog", "no_certificate", lambda: mesh.outer.run(
        ["sh", "-c", "echo | timeout 2 openssl s_client -tls1_3 -connect %s:8000" % peer["address"]], timeout=10))
    why(mesh, id, "missing_identity", policy=("MeshTls", "catalog", revision), caller=False,
        words=["10.77.0.1:", "no workload of the mesh", "showed no certificate", "STRICT of MeshTls catalog, revision %d" % revision])
    r = mesh.weft("topology")
    expect(r.rc == 0 and "weft why " + id in r.out, "weft topology has no example to ask by: " + r.out)
    return first


def why_wrong_identity(mesh):
    """why: wrong identity: an address that belongs to another service now; expected and presented identity, both ends"""
    peer = mesh.active("catalog")[0]
    # A sidecar of "stale" that registers the address of catalog's instance as its own.
    enter = mesh.namespace("stale", "10.77.200.3")
    weft = mesh.outer.spawn(enter + [BIN + "/tools/weft/weft", "run", "--no-netns", "--no-intercept", "--service", "stale", "--address", peer["address"],
                                     "--port", "8000:http@80", "--ready", "none", "--run-dir", mesh.dir + "/run-stale", "--join-token-file",
                                     mesh.token("stale"), "--xds-server", "10.77.0.1:15012", "--", "sleep", "infinity"], mesh.dir + "/logs/stale.log")
    try:
        mesh.until(lambda: mesh.active("stale"), 20, "stale is not an endpoint")
        mesh.until(lambda: asked(mesh, "http://stale/items")[0] == 503, 5, "it was answered")
        status, trace = asked(mesh, "http://stale/items", "-X", "POST", "-d", "x")
        expect(status == 503, "status %d" % status)
        w = why(mesh, trace, "wrong_identity", words=["expected spiffe://weft.local/ns/default/sa/stale", "but spiffe://weft.local/ns/default/sa/catalog presented itself"])
        expect(all(a["outcome"] == "tls_san_mismatch" for a in w["client"]["attempts"]), "attempts: %s" % w["client"]["attempts"])
        expect(w["server"]["workload"] == peer["id"] and w["server"]["tls_failure"] == "peer_alert", "the callee's view: %s" % w["server"])
        return w["sentence"]
    finally:
        mesh.outer.kill(weft)


def why_behind(mesh):
    """why: what happened behind an application that answered 503: the TCP connection of it that a policy denied"""
    revision = apply(mesh, "kind: Authorization\nmetadata: {name: redis}\nspec:\n  action: DENY\n  rules:\n  - name: nobody\n    from: [{services: [\"*\"]}]\n")
    status, trace = 0, None
    for _ in range(10):
        status, trace = asked(mesh, "http://cart/cart/x")
        if status == 503:
            break
    expect(status == 503, "status %d" % status)
    w = why(mesh, trace, "denied_by_policy", policy=("Authorization", "redis", revision),
            words=["cart answered client with status 503 because its TCP connection to redis was denied", "rule nobody", "/ns/default/sa/cart connect"])
    expect(w["path"] == ["client", "cart", "redis"], "path: %s" % w["path"])
    expect(w["client"]["workload"].startswith("cart-") and w["server"]["workload"].startswith("redis-"), "views: %s %s" % (w["client"], w["server"]))
    # From further away, and with others' requests at the same carts: the same cause, now by likelihood.
    flood = mesh.load("cart", 60, "GET /cart/y", connections=8)
    status, trace = asked(mesh, "http://frontend/cart?user=x")
    flood()
    expect(status >= 500, "status %d" % status)
    far = why(mesh, trace, "denied_by_policy", policy=("Authorization", "redis", revision), words=["cart answered frontend with status 503", "rule nobody"])
    expect(far["path"] == ["client", "frontend", "cart", "redis"], "path: %s" % far["path"])
    return re.sub(r"\. redis's.*", "", w["sentence"])


PROMISES = [why_denied, why_timeout, why_refused, why_breaker, why_budget, why_reset, why_ejected, why_rollout, why_missing_identity,
            why_wrong_identity, why_behind]
