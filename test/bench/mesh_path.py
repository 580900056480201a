"""The mesh's whole path beside an Envoy pair's and beside no mesh: what each adds to a request. See tools/bench mesh-path.

Three pairs of network namespaces on one bridge, all up at once, all with the same load and the same backend:
  none    client -> backend
  weft    client -> nftables -> sidecar == mTLS, HTTP/2 ==> nftables -> sidecar -> backend; every request an event to the server
  envoy   the same with a stock Envoy in the sidecar's place: clusters, endpoints, routes and identity from our server as
          ever, listeners too, with Envoy's access log to a file added (our server gives no foreign proxy a log)
One policy for both (POLICY). The load is an open loop: latency counts from the moment a request was due. A repetition runs
all three right after each other, at each rate; what is added is taken within it. Each end has a core of its own, as if on
a machine of its own: load and the client's proxy on one, the server's proxy and the backend on the other. In a mesh the xDS
server has its own machine; here it has what the ends leave of theirs, so the ends of all three go before it (SCHED_FIFO).
Nice and short slices do not do that: who uses a core most is the one the scheduler then holds back, until its next tick 4 ms
later. --shared takes that order away.
"""

import argparse
import collections
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.dont_write_bytecode = True
sys.path.insert(0, ROOT + "/test/scenario")
from mesh import BIN, Mesh, Unmet, expect  # noqa: E402

PORT, CONNECTIONS, ENVOY_UID, SERVER = 8000, 32, "4242", "10.77.0.1:15012"
KINDS = ("none", "weft", "envoy")
POLICY = """apiVersion: weft/v1
kind: Authorization
metadata: {name: %(kind)s-back}
spec:
  action: ALLOW
  rules:
  - name: its-client
    from: [{services: [%(kind)s-client]}]
---
apiVersion: weft/v1
kind: Route
metadata: {name: %(kind)s-back}
spec:
  rules:
  - name: all
    timeout: 5s
    retry: {attempts: 2, on: [5xx]}
"""
# CPU of groups of processes ("pid,pid pid"), and of the cores, at the load's START and at its end: read by the shell itself,
# because a dozen processes started under the load would show in its p99.
RUN = """snap() {
  local line= group p t run busy=0 steal=0 name user nice system idle iowait irq softirq stolen rest
  for group in %(groups)s; do
    run=0
    for p in ${group//,/ }; do
      for t in /proc/$p/task/*/schedstat; do { read -r user rest <$t && run=$((run + user)); } 2>/dev/null; done
    done
    line+="$run "
  done
  while read -r name user nice system idle iowait irq softirq stolen rest; do
    [[ $name =~ ^cpu(%(cores)s)$ ]] && busy=$((busy + user + nice + system + irq + softirq)) steal=$((steal + stolen))
  done </proc/stat
  echo "$line$busy $steal"
}
taskset -c %(core)s %(load)s | while read -r line; do echo "$line"; snap; done"""

Pair = collections.namedtuple("Pair", "address enter proxies backend")  # whom the load dials, how it enters, pids


def say(text):
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


class Path:
    def __init__(self, args, directory):
        self.args, self.dir = args, directory
        self.mesh = Mesh(directory, 0)
        self.folder = {}
        self.programs()

    def programs(self):
        """The bench's own load and backend, which know 127.0.0.1 only, with the address from the environment."""
        for name, there in (("load", 'inet_addr(getenv("BENCH_ADDRESS"))'), ("backend", "INADDR_ANY")):
            with open("%s/%s.c" % (self.args.bench, name)) as f:
                source = f.read()
            expect(source.count("htonl(INADDR_LOOPBACK)") == 1, "%s.c of the bench is not as expected" % name)
            subprocess.run(["gcc", "-O2", "-x", "c", "-o", self.program(name), "-", "-lssl", "-lcrypto"], check=True, text=True,
                           input=source.replace("htonl(INADDR_LOOPBACK)", there))
        shutil.copyfile(self.args.envoy, self.program("envoy"))
        os.chmod(self.program("envoy"), 0o755)

    def program(self, name):
        return self.dir + "/bin/" + name

    # ---- the three pairs

    def start(self):
        mesh = self.mesh
        mesh.start()
        self.pin(mesh.server_pid, "%s,%s" % (self.args.client_cpu, self.args.server_cpu), first=False)
        mesh.apply("---\n".join(POLICY % {"kind": k} for k in KINDS[1:]))
        pairs = {"none": self.plain(), "weft": self.weft(), "envoy": self.envoy()}
        for kind, pair in pairs.items():
            self.until_served(kind, pair)
        return pairs

    def backend(self, enter):
        pid = self.mesh.outer.spawn(enter + [self.program("backend"), "h1", str(PORT), "1024"], self.dir + "/logs/backend.log")
        self.pin(pid, self.args.server_cpu)
        return pid

    def plain(self):
        backend = self.backend(self.mesh.namespace("none-back", "10.77.201.1"))
        return Pair(("10.77.201.1", PORT), self.mesh.namespace("none-client", "10.77.201.2"), [], backend)

    def weft(self):
        mesh = self.mesh
        flags = ["--sidecar", self.args.sidecar]
        back = mesh.run("weft-back", "v1", "%d:http@80" % PORT, "tcp", [self.program("backend"), "h1", str(PORT), "1024"], flags)
        client = mesh.run("weft-client", "v1", None, None, ["sleep", "infinity"], flags)
        mesh.until(lambda: mesh.active("weft-back") and all((w.state or {}).get("app") for w in (back, client)), 30,
                   lambda: "our pair does not come up: " + mesh.silent())
        for pid in (back.state["app"], back.state["sidecar"]):
            self.pin(pid, self.args.server_cpu)
        self.pin(client.state["sidecar"], self.args.client_cpu)
        self.ends = client, back
        return Pair((self.vip("weft-back"), 80), ["nsenter", "-t", str(client.state["app"]), "--net", "--"],
                    [client.state["sidecar"], back.state["sidecar"]], back.state["app"])

    def envoy(self):
        """Only a registered workload is an endpoint and has an inbound side: an idle sidecar elsewhere reports for Envoy's."""
        mesh = self.mesh
        back, client = mesh.namespace("envoy-back", "10.77.202.1"), mesh.namespace("envoy-client", "10.77.202.2")
        backend = self.backend(back)
        registrar = mesh.run("envoy-back", "v1", "%d:http@80" % PORT, "none", ["sleep", "infinity"],
                             ["--no-netns", "--no-intercept", "--address", "10.77.202.1", "--sidecar", self.args.sidecar],
                             enter=mesh.namespace("registrar", "10.77.202.3"))
        mesh.until(lambda: mesh.active("envoy-back"), 30, lambda: "Envoy's workload is not registered: " + mesh.silent())
        proxies = [self.one_envoy("envoy-client", client, self.args.client_cpu, []),
                   self.one_envoy("envoy-back", back, self.args.server_cpu, ["--id", registrar.state["id"]])]
        return Pair((self.vip("envoy-back"), 80), client, proxies, backend)

    def one_envoy(self, service, enter, cpu, flags):
        mesh, weft = self.mesh, BIN + "/tools/weft/weft"
        folder = self.folder[service] = "%s/%s" % (self.dir, service)
        with open(self.dir + "/bundle.pem", "w") as f:
            f.write(mesh.api("GET", "/api/v1/trust-bundle")["pem"])
        mesh.must(mesh.outer.run([weft, "bootstrap", "envoy", "--dir", folder, "--service", service, "--xds-server", SERVER,
                                  "--join-token-file", mesh.token(service), "--trust-bundle", self.dir + "/bundle.pem", *flags]), "bootstrap an Envoy")
        mesh.must(mesh.outer.run(["chown", "-R", ENVOY_UID + ":" + ENVOY_UID, folder]), "chown")
        mesh.must(mesh.outer.run(enter + [weft, "intercept", "--sidecar-uid", ENVOY_UID, "--dns-port", "0"]), "intercept")
        want = {"outbound", "inbound"} if flags else {"outbound"}

        def listeners():
            r = mesh.outer.run(self.curl(folder, "/config_dump?resource=dynamic_listeners"))
            dump = json.loads(r.out or "{}").get("configs", []) if r.rc == 0 else []
            found = {d["name"]: d["active_state"]["listener"] for d in dump if "active_state" in d}
            return found if want <= set(found) else None

        pid = self.spawn_envoy(enter, folder, "envoy.json")
        found = mesh.until(listeners, 30, lambda: "Envoy has no listeners; see %s/logs/envoy.log" % self.dir)
        mesh.outer.kill(pid)
        mesh.outer.wait(pid, 10)
        log = {"name": "file", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                                                "path": folder + "/access.log"}}
        for listener in found.values():
            for chain in listener.get("filterChains", listener.get("filter_chains", [])):
                for f in chain["filters"]:
                    config = f.get("typedConfig", f.get("typed_config"))
                    if config["@type"].endswith("HttpConnectionManager"):
                        config["access_log"] = [log]
        with open(folder + "/lds.json", "w") as f:
            json.dump({"version_info": "1", "resources": [found[n] for n in want]}, f)
        with open(folder + "/envoy.json") as f:
            bootstrap = json.load(f)
        bootstrap["dynamic_resources"]["lds_config"] = {"path_config_source": {"path": folder + "/lds.json"}, "resource_api_version": "V3"}
        with open(folder + "/logged.json", "w") as f:
            json.dump(bootstrap, f)
        pid = self.spawn_envoy(enter, folder, "logged.json")
        mesh.until(lambda: mesh.outer.run(self.curl(folder, "/ready")).out.strip() == "LIVE", 30, "Envoy does not come up with its log")
        self.pin(pid, cpu)
        return pid

    def spawn_envoy(self, enter, folder, config):
        return self.mesh.outer.spawn(enter + ["setpriv", "--reuid", ENVOY_UID, "--regid", ENVOY_UID, "--clear-groups", "--", self.program("envoy"),
                                              "-c", folder + "/" + config, "--concurrency", "1", "-l", "warning", "--use-dynamic-base-id"],
                                     self.dir + "/logs/envoy.log")

    @staticmethod
    def curl(folder, path):
        return ["curl", "-sS", "-m", "5", "--unix-socket", folder + "/admin.sock", "http://admin" + path]

    def vip(self, service):
        return next(s["vip"] for s in self.mesh.api("GET", "/api/v1/mesh/services")["services"] if s["name"] == service)

    def pin(self, pid, cpu, first=True):
        """first: before the server and whatever else runs on the core."""
        self.mesh.must(self.mesh.outer.run(["taskset", "-acp", cpu, str(pid)]), "pin")
        if first and not self.args.shared:
            self.mesh.must(self.mesh.outer.run(["chrt", "-a", "-f", "-p", "10", str(pid)]), "put first")

    def until_served(self, kind, pair):
        last = []

        def served():
            r = self.mesh.outer.run(pair.enter + ["curl", "-sS", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", "http://%s:%d/svc4/items" % pair.address])
            last[:] = [r.out, r.err.strip()]
            return r.out == "200"

        self.mesh.until(served, 20, lambda: "%s does not serve: %s" % (kind, last), every=0.3)

    # ---- one measurement

    def measure(self, pair, rate, secs):
        load = "%s env BENCH_ADDRESS=%s %s http %d -c %d -r %d -d %g -w 1" % (
            "" if self.args.shared else "chrt -f 10", pair.address[0], self.program("load"), pair.address[1], CONNECTIONS, rate, secs)
        groups = " ".join(",".join(map(str, g)) for g in (pair.proxies or [0], [pair.backend], [self.mesh.server_pid]))
        script = RUN % {"groups": groups, "cores": "%s|%s" % (self.args.client_cpu, self.args.server_cpu), "core": self.args.client_cpu, "load": load}
        r = self.mesh.outer.run(pair.enter + ["bash", "-c", script], timeout=secs + 30)
        return reading(r.out, rate, secs, os.sysconf("SC_CLK_TCK"))

    def inspect(self, kind, pair, rate, secs):
        """Where the proxies' CPU goes, or which system calls a request costs."""
        data, pids = "%s/%s.%s" % (self.dir, self.args.inspect, kind), ",".join(map(str, pair.proxies))
        tool = {"perf": ["perf", "record", "-q", "-g", "-e", "cpu-clock", "-F", "2000", "-o", data, "-p", pids, "--", "sleep", str(secs)],
                "syscalls": ["timeout", "-s", "INT", str(secs), "strace", "-c", "-f", "-o", data, "-p", pids]}[self.args.inspect]
        running = self.mesh.outer.background(tool, secs + 30)
        r = self.measure(pair, rate, secs)
        running()
        print("== %s at %d/s, %.1f us of CPU a request" % (kind, rate, r["cpu"]))
        if self.args.inspect == "syscalls":
            with open(data) as f:
                rows = [line.split() for line in f]
            counts = {row[-1]: int(row[3]) / (rate * secs) for row in rows if len(row) >= 5 and row[3].isdigit()}
            print("   a request: " + ", ".join("%s %.2f" % x for x in counts.items() if x[1] >= 0.01), flush=True)
            return
        for sort, lines in (("comm", 6), ("dso", 6), ("symbol", 40)):
            report = subprocess.run(["perf", "report", "-i", data, "--stdio", "-g", "none", "--no-children", "--sort", sort], capture_output=True, text=True).stdout
            print("\n".join([line.rstrip(" -") for line in report.splitlines() if line.strip() and line[0] != "#"][:lines]), flush=True)

    def prove(self):
        """That both pairs did what they are compared for."""
        ours = [w.admin("/stats") for w in self.ends]
        theirs = [self.mesh.must(self.mesh.outer.run(self.curl(self.folder[s], "/stats")), "ask Envoy").out for s in ("envoy-client", "envoy-back")]
        for kind, (client, back) in (("weft", ours), ("envoy", theirs)):
            cluster = "cluster.outbound|80||%s-back.default." % kind
            for counter in ("upstream_cx_http2_total", "ssl.handshake"):
                expect(stat(client, cluster + counter) > 0, "%s: %s%s is not above 0" % (kind, cluster, counter))
            expect(stat(client, cluster + "upstream_rq_total") > 0, "%s: no request went through the client's proxy" % kind)
            expect(stat(back, "cluster.inbound|%d.upstream_rq_total" % PORT) > 0, "%s: no request went through the server's proxy" % kind)
        for service in ("envoy-client", "envoy-back"):
            expect(os.path.getsize(self.folder[service] + "/access.log") > 0, service + ": its access log is empty")
        sent = stat(ours[0], "cluster.outbound|80||weft-back.default.upstream_rq_total")

        def counted():
            edges = self.mesh.api("GET", "/api/v1/topology?window=3600")["edges"]
            return next((e["requests"] for e in edges if (e["source"], e["destination"]) == ("weft-client", "weft-back") and e["mtls"]), 0)

        try:
            self.mesh.until(lambda: counted() >= sent, 20, "")
        except Unmet:
            pass  # said below
        return "Telemetry: %d requests went through our client's sidecar, the server counts %d; sent without details %d, dropped %d." % (
            sent, counted(), stat(ours[0], "weft.events.without_detail"), stat(ours[0], "weft.events.dropped"))


def stat(text, name):
    return next((int(line.rpartition(": ")[2]) for line in text.splitlines() if line.startswith(name + ": ")), 0)


# ---- figures

def reading(text, rate, secs, ticks):
    """Of RUN's output: latencies in microseconds, CPU in microseconds a request, `void` (why it does not count) or None, `late` (fell behind the rate)."""
    lines = text.splitlines()
    if len(lines) != 4 or lines[0] != "START":
        raise Unmet("the load said: " + text[-300:])
    out, a, b = json.loads(lines[2]), [float(x) for x in lines[1].split()], [float(x) for x in lines[3].split()]
    n = max(out["requests"], 1)
    proxies, backend, server, busy, steal = (y - x for x, y in zip(a, b))
    ours = (proxies + backend + server) / 1e9 + out["load_cpu"]
    void = "%d failed, %d non-2xx" % (out["errors"], out["non2xx"]) if out["errors"] or out["non2xx"] else None
    return {**{k: out[k] for k in ("p50", "p99", "p999", "errors", "non2xx", "requests")}, "cpu": proxies / 1e3 / n, "server_cpu": server / 1e3 / n,
            "busy": ours / 2 / secs, "foreign": max(0, busy / ticks - ours) / 2 / secs, "steal": steal / ticks / 2 / secs, "void": void, "late": out["requests"] < rate * secs * 0.99}


def table(runs, rates):
    """Markdown. runs: [{"rate", "rep", "kind", ...reading}]. Added: median over the repetitions of what is above no mesh in the same one."""
    out = ["| requests/s | | p50 µs | p99 µs | p99.9 µs | added p50 | added p99 | added p99.9 | CPU of the proxies, µs/request | of the server | failed, non-2xx |",
           "|---|---|---|---|---|---|---|---|---|---|---|"]
    ratios = []
    for rate in rates:
        of = {k: {r["rep"]: r for r in runs if (r["rate"], r["kind"]) == (rate, k)} for k in KINDS}
        reps = sorted(set.intersection(*(set(v) for v in of.values())))
        void = {k: next((of[k][i]["void"] for i in reps if of[k][i]["void"]), None) for k in KINDS}
        late = {k: [i for i in reps if of[k][i]["late"]] for k in KINDS}
        if late["weft"] and not void["weft"]:  # what we do not manage is no reason to leave it out
            void["weft"] = "fell behind in %d of %d" % (len(late["weft"]), len(reps))
        late["weft"] = []
        if any(late.values()):
            ratios.append("%d/s: fell behind, so that its repetition does not count: %s" % (
                rate, ", ".join("%s in %d of %d" % (k, len(v), len(reps)) for k, v in late.items() if v)))
        reps = [i for i in reps if not any(i in v for v in late.values())]
        if not reps:
            continue
        added = {k: {q: [of[k][i][q] - of["none"][i][q] for i in reps] for q in ("p50", "p99", "p999")} for k in KINDS}
        for k in KINDS:
            m = {q: statistics.median(of[k][i][q] for i in reps) for q in ("p50", "p99", "p999", "cpu", "server_cpu")}
            plus = ["-"] * 3 if k == "none" else ["%.0f (%.0f–%.0f)" % (statistics.median(v), min(v), max(v)) for v in added[k].values()]
            out.append("| %d | %s | %.0f | %.0f | %.0f | %s | %s | %s | %s | %s | %s |" % (
                rate, k + (" VOID" if void[k] else ""), m["p50"], m["p99"], m["p999"], *plus, "-" if k == "none" else "%.1f" % m["cpu"],
                "%.1f" % m["server_cpu"] if k == "weft" else "-", void[k] or "0"))
        if any(void.values()):
            ratios.append("%d/s: void: %s" % (rate, "; ".join("%s: %s" % x for x in void.items() if x[1])))
            continue
        ratios.append("%d/s: sidecar to Envoy, of what is added: %s; CPU %.2f" % (rate, ", ".join(
            "%s %s" % (name, ratio(added["weft"][q], added["envoy"][q])) for q, name in (("p50", "p50"), ("p99", "p99"), ("p999", "p99.9"))),
            statistics.median(of["weft"][i]["cpu"] for i in reps) / statistics.median(of["envoy"][i]["cpu"] for i in reps)))
    return "\n".join(out + [""] + ratios)


def ratio(ours, theirs):
    """Of the medians; in brackets, over how many repetitions the target of 0.5 was met."""
    m = statistics.median(theirs)
    if m <= 0:
        return "none (Envoy adds nothing that can be told from noise)"
    return "%.2f (<= 0.5 in %d of %d)" % (statistics.median(ours) / m, sum(o <= 0.5 * t for o, t in zip(ours, theirs)), len(ours))


def main():
    p = argparse.ArgumentParser(prog="tools/bench mesh-path", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--reps", type=int, default=5)
    p.add_argument("--secs", type=float, default=8)
    p.add_argument("--rates", default="1000,5000", help="requests/s")
    p.add_argument("--shared", action="store_true", help="proxies, load and backends take turns with our server on their cores, instead of going before it")
    p.add_argument("--out", default="", help="the readings as JSON")
    p.add_argument("--perf", dest="inspect", action="store_const", const="perf", help="a CPU profile of the proxies instead")
    p.add_argument("--syscalls", dest="inspect", action="store_const", const="syscalls", help="their system calls a request instead")
    p.add_argument("--keep", action="store_true", help="leave the folder of logs")
    p.add_argument("--client-cpu", default=os.environ.get("BENCH_LOAD_CPU", "1"))
    p.add_argument("--server-cpu", default=os.environ.get("BENCH_PROXY_CPU", "0"))
    p.add_argument("--bench", required=True, help=argparse.SUPPRESS)
    p.add_argument("--sidecar", required=True, help=argparse.SUPPRESS)
    p.add_argument("--envoy", required=True, help=argparse.SUPPRESS)
    args = p.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    rates = [int(x) for x in args.rates.split(",")]
    directory = tempfile.mkdtemp(prefix="weft-path.")
    path, runs = None, []
    try:
        path = Path(args, directory)
        say("bringing up three pairs")
        pairs = path.start()
        for rate, kind in ((r, k) for r in rates for k in KINDS[1:] if args.inspect):
            path.inspect(kind, pairs[kind], rate, args.secs)
        for rep in range(-1, 0 if args.inspect else args.reps):  # the first is for warmth and not counted
            for rate in rates:
                for kind in KINDS[rep % 3:] + KINDS[:rep % 3]:
                    r = path.measure(pairs[kind], rate, args.secs if rep >= 0 else 1)
                    say("%s %5d/s %-5s p50 %6.0f p99 %6.0f p99.9 %6.0f us, %5.1f us of CPU; of both cores ours %2.0f %%, others %2.0f %%, stolen %2.0f %%%s" % (
                        "warm " if rep < 0 else "rep %d" % rep, rate, kind, r["p50"], r["p99"], r["p999"], r["cpu"], 100 * r["busy"], 100 * r["foreign"], 100 * r["steal"],
                        "  VOID: " + r["void"] if r["void"] else "  late: %d answers" % r["requests"] if r["late"] else ""))
                    if rep >= 0:
                        runs.append({"rate": rate, "rep": rep, "kind": kind, **r})
            if args.out:
                with open(args.out, "w") as f:
                    json.dump(runs, f, indent=1)
        telemetry = path.prove()
        if runs:
            print(table(runs, rates))
        print(telemetry)
    except (Unmet, KeyboardInterrupt) as e:
        say("tools/bench: " + (str(e) or "interrupted"))
        return 1
    finally:
        if path:
            path.mesh.close()
        if args.keep:
            say("kept: " + directory)
        else:
            shutil.rmtree(directory, ignore_errors=True)
    return 1 if any(r["void"] or r["late"] and r["kind"] == "weft" for r in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
