#!/usr/bin/env python3
"""ws_client: holds WebSockets open and echoes through each of them until the time is up.

    ws_client.py --host catalog --path /ws --connections 100 --seconds 30 [--text tea]
Prints one line of JSON: connections, opened, messages, broken (ended early or echoed wrongly). Exit status 1 if any broke.
"""
import argparse, base64, json, os, socket, struct, sys, threading, time

p = argparse.ArgumentParser()
p.add_argument("--host", default="catalog")
p.add_argument("--port", type=int, default=80)
p.add_argument("--path", default="/ws")
p.add_argument("--connections", type=int, default=10)
p.add_argument("--seconds", type=float, default=5)
p.add_argument("--text", default="", help="part of every message, at most 100 characters")
a = p.parse_args()
end = time.time() + a.seconds
count = {"connections": a.connections, "opened": 0, "messages": 0, "broken": 0}
errors, lock = {}, threading.Lock()


def run(i):
    try:
        s = socket.create_connection((a.host, a.port), 10)
        s.settimeout(15)
        key = base64.b64encode(os.urandom(16)).decode()
        s.sendall(("GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: %s\r\n"
                   "Sec-WebSocket-Version: 13\r\n\r\n" % (a.path, a.host, key)).encode())
        f = s.makefile("rb")
        status = f.readline()
        if b" 101" not in status:
            raise OSError("not upgraded: %r" % status)
        while f.readline().strip():
            pass
        with lock:
            count["opened"] += 1
        n = 0
        while time.time() < end:
            data = b"%d:%d:%s" % (i, n, a.text.encode())
            mask = os.urandom(4)
            s.sendall(struct.pack(">BB", 0x81, 0x80 | len(data)) + mask + bytes(b ^ mask[k & 3] for k, b in enumerate(data)))
            head = f.read(2)
            if len(head) < 2 or f.read(head[1] & 127) != data:
                raise OSError("the connection ended or echoed something else")
            n += 1
            with lock:
                count["messages"] += 1
            time.sleep(.1)
        s.close()
    except OSError as e:
        with lock:
            count["broken"] += 1
            errors[str(e)] = errors.get(str(e), 0) + 1


threads = [threading.Thread(target=run, args=(i,)) for i in range(a.connections)]
for t in threads:
    t.start()
for t in threads:
    t.join()
print(json.dumps({**count, "errors": errors}))
sys.exit(1 if count["broken"] else 0)
