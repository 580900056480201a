"""More than one worker: `tools/bench workers`. The harness's h2, h2-to-h1 and mtls-pair configurations with 1, 2, 4 ... workers, and
one single HTTP/2 connection.

With cores enough (two for each worker) the workers have cores of their own and requests/s say how the work grows. With fewer the
load runs on the workers' cores, and the proxy's CPU for each request says it: what workers hold in common would make it grow.
Runs with different numbers of workers follow each other in each repetition. A run with a failed request is void."""
import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--bench", required=True, help="the harness's folder")
    ap.add_argument("--sidecar", required=True)
    ap.add_argument("--reps", type=int, default=3)
    ap.add_argument("--secs", type=int, default=4)
    ap.add_argument("scenarios", nargs="*", default=["h2", "h2-to-h1", "mtls-pair", "one-connection"])
    a = ap.parse_args()
    sys.path.insert(0, a.bench)
    import proxies
    import run
    cores = sorted(os.sched_getaffinity(0))
    counts = [n for n in (1, 2, 4, 8, 16, 32) if n == 1 or n <= max(2, len(cores) // 2)]
    apart = len(cores) >= 2 * counts[-1]
    tmp = tempfile.mkdtemp(prefix="bench.")
    built = run.build(tmp)
    cert, key, ca = run.certs(tmp)
    base = dict(backend=built.backend, floor=built.floor, load=built.load, cert=cert, key=key, ca=ca, bulk=0)

    def once(scenario, workers):
        kind = {"one-connection": "h2"}.get(scenario, scenario)
        proxies.PROXIES["workers"] = proxies.envoy_family(lambda: [a.sidecar, "-c", "{conf}", "--concurrency", str(workers), "-l", "error"])
        run.PCPU = ",".join(map(str, cores[:counts[-1]] if apart else cores))
        others = cores[counts[-1]:] if apart else cores
        run.LCPU = ",".join(map(str, others))

        def body(ctx, pids, backend):
            streams = {"one-connection": ("-c1", "-m256"), "mtls-pair": ("--h1", "-c64")}.get(scenario, ("-c64", "-m16"))
            load = ["taskset", "-c", run.LCPU, "h2load", "-t%d" % (1 if scenario == "one-connection" else min(workers, len(others))), *streams]
            url = "http://127.0.0.1:%d%s" % (ctx.front, run.PATH)
            subprocess.run([*load, "-D1", url], stdout=subprocess.DEVNULL)
            before = run.cpu(pids)[0]
            out = subprocess.run([*load, "-D%d" % a.secs, url], stdout=subprocess.PIPE, text=True).stdout
            took = run.cpu(pids)[0] - before
            done, bad = int(re.search(r"(\d+) 2xx", out).group(1)), re.search(r"(\d+) failed", out).group(1)
            if bad != "0" or not done:
                raise SystemExit("workers: %s: failed requests\n%s" % (scenario, out))
            return done / a.secs, took * 1e6 / done
        return run.session("workers", kind, base, base, body)

    print("%d cores; the workers %s\n" % (len(cores), "have cores of their own" if apart else "share them with load and backend: read the CPU"))
    print("| scenario | workers | requests/s (min-max) | to one worker | CPU us/request | to one worker |\n|---|---|---|---|---|---|")
    for scenario in a.scenarios:
        rows = {n: [] for n in counts}
        for _ in range(a.reps):
            for n in counts:
                rows[n].append(once(scenario, n))
        for n in counts:
            rate, cpu = zip(*rows[n])
            to = [statistics.median(x[k] / y[k] for x, y in zip(rows[n], rows[1])) for k in (0, 1)]
            print("| %s | %d | %.0f (%.0f-%.0f) | %.2f | %.1f | %.2f |" % (
                scenario, n, statistics.median(rate), min(rate), max(rate), to[0], statistics.median(cpu), to[1]), flush=True)


if __name__ == "__main__":
    main()
