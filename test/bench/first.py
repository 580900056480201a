"""Gives the threads of PIDs (and what they start) scheduler slices of 100 us: whoever else has the core gives way when they wake. Nice
alone does not do that since Linux 6.6: who runs keeps the core for a slice, some 3 ms. Needs Linux 6.12; earlier ones ignore it."""
import ctypes
import os
import struct
import sys

SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}[os.uname().machine]
SLICE_NS = 100_000
libc = ctypes.CDLL(None, use_errno=True)

for pid in sys.argv[1:]:
    for thread in map(int, os.listdir("/proc/%s/task" % pid)):
        # struct sched_attr: size, policy (SCHED_OTHER), flags, nice, priority, runtime (its slice), deadline, period
        attr = struct.pack("=IIQiIQQQ", 48, 0, 0, os.getpriority(os.PRIO_PROCESS, thread), 0, SLICE_NS, 0, 0)
        if libc.syscall(SCHED_SETATTR, thread, attr, 0) != 0:
            sys.exit("first.py: thread %d: %s" % (thread, os.strerror(ctypes.get_errno())))
