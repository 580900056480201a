"""The mesh's own path with everything on, at saturation: `tools/bench telemetry`. The harness's mtls-pair with mesh filters, and
every proxy writes an access log line for each request, which is the telemetry that our sidecar and Envoy have in common (what our
server is told besides is measured by mesh-path). Arguments are the harness's (--reps, --secs ...)."""
import itertools
import os
import sys
import tempfile

sys.dont_write_bytecode = True


def main():
    bench, arguments = sys.argv[1], sys.argv[2:]
    sys.path.insert(0, bench)
    import proxies
    import run
    with tempfile.TemporaryDirectory(prefix="bench.") as logs:
        plain, count = proxies.envoy_http, itertools.count()

        def logged(port, routes, tls=None, log=None, extra=()):
            return plain(port, routes, tls, log or os.path.join(logs, "access.%d.log" % next(count)), extra)
        proxies.envoy_http = logged
        out = os.path.join(logs, "telemetry.json")
        sys.argv = [os.path.join(bench, "run.py"), "--proxies", "sidecar-istio-like,envoy-istio-like", "--out", out, *arguments, "mtls-pair"]
        run.main()
        if not os.path.exists(out):
            return  # --perf: profiles, not readings
        # Each proxy of each run has logged, or the figures are of something else.
        files = [os.path.join(logs, f) for f in os.listdir(logs) if f.endswith(".log")]
        written = sum(os.path.getsize(f) > 0 for f in files)
        wanted = next(count)
        if written == 0 or written != wanted:
            raise SystemExit("telemetry: %d of %d logs were written" % (written, wanted))
        sys.argv = [sys.argv[0], "--table", out]
        run.main()


if __name__ == "__main__":
    main()
