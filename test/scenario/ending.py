"""The promise about the demo itself: how it ends, and what a killed one leaves to the next."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

from mesh import ROOT, Skip, expect

DIR = "/var/lib/weft-demo"


def demo_ends(mesh):
    """The demo ends on Ctrl-C with nothing left, and what kill -9 left of one is cleaned by the next start"""
    if os.path.exists(DIR + ".lock") and subprocess.run(["flock", "-n", DIR + ".lock", "true"]).returncode:
        raise Skip("a demo is running on this machine")
    before = footprint()
    first = Demo()
    first.until("Ctrl-C ends it")
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    mesh.until(lambda: not processes(), 10, lambda: "kill -9 left processes: %s" % processes())
    expect(footprint() == before, "kill -9 left links or rules: %s" % (footprint(),))
    stray = DIR + "/run/left-by-the-first"
    open(stray, "w").close()
    second = Demo()
    second.until("Ctrl-C ends it")
    expect(not os.path.exists(stray), "the next start did not clear the folder")
    second.type(b"\x03")
    status = second.wait()
    expect(status == 0, "exit status %s after Ctrl-C: %s" % (status, second.said[-500:]))
    expect(not processes(), "Ctrl-C left processes: %s" % processes())
    expect(footprint() == before, "Ctrl-C left links or rules: %s" % (footprint(),))
    left = [f for f in (DIR, DIR + ".lock") if os.path.exists(f)]
    expect(not left, "Ctrl-C left %s" % left)


class Demo:
    """tools/demo on a terminal of its own."""

    def __init__(self):
        self.said = ""
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            try:
                os.execv(ROOT + "/tools/demo", ["tools/demo", "--no-build", "--port", "0"])
            finally:
                os._exit(127)

    def until(self, text, seconds=60):
        end = time.monotonic() + seconds
        while text not in self.said:
            expect(self._read(end - time.monotonic()), "the demo did not say %r: %s" % (text, self.said[-500:]))

    def _read(self, seconds):
        """False at the end of its output, or of the time."""
        if seconds <= 0 or not select.select([self.terminal], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self.terminal, 4096)
        except OSError:
            return False
        self.said += data.decode(errors="replace")
        return bool(data)

    def type(self, keys):
        os.write(self.terminal, keys)

    def wait(self, seconds=30):
        end = time.monotonic() + seconds
        while self._read(end - time.monotonic()):
            pass
        os.close(self.terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def processes():
    """Those whose command line names the demo's folder."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % pid, "rb") as f:
                line = f.read()
        except OSError:
            continue
        if DIR.encode() + b"/" in line:
            found.append("%s %s" % (pid, line.replace(b"\0", b" ")[:60].decode(errors="replace")))
    return found


def footprint():
    """The host's links, named namespaces and rules."""
    def out(*argv):
        return subprocess.run(argv, capture_output=True, text=True).stdout

    return sorted(re.findall(r"^\d+: ([^:@]+)", out("ip", "link"), re.M)), out("ip", "netns"), out("nft", "list", "ruleset")


PROMISES = [demo_ends]
