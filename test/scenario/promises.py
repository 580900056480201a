"""What tools/demo --check asserts: every promise a function, in the order of the list.

A promise takes the mesh and returns a word or two of detail; it raises Unmet (or anything else) when it does not hold.
It leaves the mesh as it found it: policies it applied are rolled back here, whatever happened.
"""

import os
import shutil
import sys
import time
import traceback

import ending
import life
import identity
import insight
import ipv6
import policy
import reasons
import traffic
from mesh import SHOP, Mesh, Skip, Unmet

# In this order: quiet ones first, those that kill things last.
PROMISES = [
    *traffic.PROMISES,
    *identity.PROMISES,
    *policy.PROMISES,
    *ipv6.PROMISES,
    *insight.PROMISES,
    *reasons.PROMISES,
    *life.PROMISES,
    *ending.PROMISES,
]


def restore(mesh, revision):
    """Back to the policies of the start; all workloads serving again."""
    if mesh.api("GET", "/api/v1/objects")["revision"] != revision:
        mesh.revision = mesh.api("POST", "/api/v1/rollback", {"revision": revision})["revision"]
    for w in mesh.workloads:
        for service in ("frontend", "catalog", "cart"):
            if w.service == service and w.state:
                w.run(["curl", "-sS", "-m", "5", "-X", "POST", "http://127.0.0.1:8000/_chaos"], timeout=10)
    mesh.until(lambda: len(mesh.active()) >= len(SHOP), 30, lambda: "not all workloads came back: " + mesh.silent())
    mesh.await_push(seconds=10)


def check_all(directory, wanted, say):
    """[{"name", "result", "detail"}]; prints one line a promise as it goes."""
    chosen = [f for f in PROMISES if not wanted or any(w in name(f) or w in f.__name__ for w in wanted)]
    results = []

    def report(promise, result, detail, seconds):
        results.append({"name": promise, "result": result, "detail": detail})
        print("%-7s %-60s %5.1fs  %s" % ({"passed": "ok", "failed": "BROKEN", "skipped": "skipped"}[result], promise, seconds, detail))
        sys.stdout.flush()

    begun = time.monotonic()
    # Certificates of 50 s: every one is renewed many times while the promises are looked at.
    mesh = Mesh(directory, 0, ["--leaf-lifetime-s", "50"])
    try:
        try:
            mesh.start()
            mesh.start_shop()
            mesh.await_shop(60)
            report("the shop is meshed in under 60 s", "passed", "%d workloads" % len(mesh.active()), time.monotonic() - begun)
        except Exception as e:
            report("the shop is meshed in under 60 s", "failed", text_of(e), time.monotonic() - begun)
            for f in chosen:
                report(name(f), "failed", "the mesh did not come up", 0)
            return results
        base = mesh.api("GET", "/api/v1/objects")["revision"]
        for f in chosen:
            start = time.monotonic()
            try:
                result, detail = "passed", f(mesh) or ""
            except Skip as e:
                result, detail = "skipped", str(e)
            except Exception as e:
                result, detail = "failed", text_of(e)
            seconds = time.monotonic() - start
            try:
                restore(mesh, base)
            except Exception as e:
                result, detail = "failed", (detail + "; " if detail else "") + "afterwards: " + text_of(e)
            report(name(f), result, detail, seconds)
        start = time.monotonic()
        mesh.close()
        left = leftovers(directory)
        report("it ends without leaving a process, namespace or rule", "failed" if left else "passed", left, time.monotonic() - start)
        return results
    finally:
        mesh.close()
        if all(r["result"] != "failed" for r in results):
            shutil.rmtree(directory, ignore_errors=True)
        else:
            say("logs are kept in %s/logs" % directory)


def name(f):
    return f.__doc__.strip().split("\n")[0]


def text_of(e):
    if isinstance(e, Unmet):
        return str(e)
    where = traceback.extract_tb(e.__traceback__)[-1]
    return "%s: %s (%s:%d)" % (type(e).__name__, e, os.path.basename(where.filename), where.lineno)


def leftovers(directory):
    """Processes that name the folder in their command line or environment, other than ourselves."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) == os.getpid():
            continue
        try:
            with open("/proc/%s/cmdline" % pid, "rb") as f:
                if directory.encode() + b"/" in f.read():
                    found.append(pid)
        except OSError:
            pass
    return "still there: %s" % ", ".join(found) if found else ""

