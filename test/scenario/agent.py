"""Runs inside the demo's outer namespace and does what the other side of its pipe says.

One JSON object a line on stdin, one a line on stdout:
  {"op": "spawn", "id": 1, "argv": [...], "log": "file", "fds": [5]}    -> {"id": 1, "pid": 77}, later {"exited": 77, "rc": 0}
  {"op": "run", "id": 2, "argv": [...], "timeout": 10, "stdin": ""}     -> {"id": 2, "rc": 0, "out": "...", "err": "..."}
  {"op": "signal", "id": 3, "pid": 77, "sig": 15}                       -> {"id": 3}
It ends at the end of its input, and with it (its parent is the namespace's process 1) everything else in here.
"""

import json
import os
import subprocess
import sys
import threading

lock = threading.Lock()


def say(message):
    with lock:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


def watch(process):
    say({"exited": process.pid, "rc": process.wait()})


def spawn(m):
    with open(m["log"], "ab") as log:
        p = subprocess.Popen(m["argv"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=m.get("fds", []),
                             start_new_session=True, env={**os.environ, **m.get("env", {})})
    say({"id": m["id"], "pid": p.pid})
    threading.Thread(target=watch, args=(p,), daemon=True).start()


def run(m):
    try:
        p = subprocess.run(m["argv"], input=m.get("stdin", "").encode(), capture_output=True, timeout=m.get("timeout", 30),
                           env={**os.environ, **m.get("env", {})}, start_new_session=True)
        say({"id": m["id"], "rc": p.returncode, "out": p.stdout.decode(errors="replace"), "err": p.stderr.decode(errors="replace")})
    except subprocess.TimeoutExpired as e:
        say({"id": m["id"], "rc": 124, "out": (e.stdout or b"").decode(errors="replace"), "err": "timed out"})
    except OSError as e:
        say({"id": m["id"], "rc": 127, "out": "", "err": str(e)})


def main():
    for line in sys.stdin:
        m = json.loads(line)
        if m["op"] == "spawn":
            try:
                spawn(m)
            except OSError as e:
                say({"id": m["id"], "error": str(e)})
        elif m["op"] == "run":
            threading.Thread(target=run, args=(m,), daemon=True).start()
        elif m["op"] == "signal":
            try:
                os.kill(m["pid"], m["sig"])
                say({"id": m["id"]})
            except OSError as e:
                say({"id": m["id"], "error": str(e)})


main()
