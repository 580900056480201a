"""The outer namespace: network, mounts and processes of the demo, apart from the host's.

    with Outer(pass_fds=[fd]) as outer:
        pid = outer.spawn(["sleep", "9"], log="/tmp/x")
        outer.run(["ip", "link"]).out

Everything in it dies with this process, however it ends: it is a PID namespace whose first process is bound to ours
(PR_SET_PDEATHSIG), and the network namespace, its bridge and its links vanish with their last process.
"""

import collections
import ctypes
import itertools
import json
import os
import signal
import subprocess
import sys
import threading

Result = collections.namedtuple("Result", "rc out err")
HERE = os.path.dirname(os.path.abspath(__file__))


def _die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    os.setsid()  # a Ctrl-C at the terminal is ours alone


class Outer:
    def __init__(self, pass_fds=()):
        self._ids = itertools.count(1)
        self._answers = {}
        self._wake = threading.Condition()
        self.exited = {}  # inner pid -> return code
        self._process = subprocess.Popen(
            # The shell is process 1: waiting for its one child it reaps every orphan.
            ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc",
             "sh", "-c", 'ip link set lo up; mkdir -p /run/netns; mount -t tmpfs none /run/netns; "$0" -u "$1"; exit $?', sys.executable, HERE + "/agent.py"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=pass_fds, preexec_fn=_die_with_parent, text=True)
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _read(self):
        for line in self._process.stdout:
            m = json.loads(line)
            with self._wake:
                if "exited" in m:
                    self.exited[m["exited"]] = m["rc"]
                else:
                    self._answers[m["id"]] = m
                self._wake.notify_all()
        with self._wake:
            self._answers = None
            self._wake.notify_all()

    def start(self, op, **fields):
        """Sends; the answer is fetched with finish()."""
        ident = next(self._ids)
        with self._wake:
            self._process.stdin.write(json.dumps({"op": op, "id": ident, **fields}) + "\n")
            self._process.stdin.flush()
        return ident

    def finish(self, ident, timeout=None):
        with self._wake:
            self._wake.wait_for(lambda: self._answers is None or ident in self._answers, timeout)
            if self._answers is None:
                raise RuntimeError("the outer namespace is gone")
            if ident not in self._answers:
                raise TimeoutError("no answer from the outer namespace")
            m = self._answers.pop(ident)
        if "error" in m:
            raise OSError(m["error"])
        return m

    def spawn(self, argv, log, fds=(), env=None):
        return self.finish(self.start("spawn", argv=argv, log=log, fds=list(fds), env=env or {}))["pid"]

    def background(self, argv, timeout=30, stdin=""):
        """A running command; call the result for its Result."""
        ident = self.start("run", argv=argv, timeout=timeout, stdin=stdin)

        def wait():
            m = self.finish(ident, timeout + 10)
            return Result(m["rc"], m["out"], m["err"])

        return wait

    def run(self, argv, timeout=30, stdin=""):
        return self.background(argv, timeout, stdin)()

    def signal(self, pid, sig):
        self.finish(self.start("signal", pid=pid, sig=int(sig)))

    def kill(self, pid):
        """SIGKILL, unless it has ended by itself."""
        if pid not in self.exited:
            try:
                self.signal(pid, signal.SIGKILL)
            except OSError:
                pass

    def wait(self, pid, timeout):
        """Return code of a spawned process, None when it still runs."""
        with self._wake:
            self._wake.wait_for(lambda: pid in self.exited or self._answers is None, timeout)
            return self.exited.get(pid)

    def close(self):
        try:
            self._process.stdin.close()
        except OSError:
            pass
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
