#!/usr/bin/env python3
"""cart: each user's basket in Redis, spoken to in raw RESP."""
import socket, threading
from web import Service, serve

local = threading.local()


class Redis:
    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.sock = socket.create_connection((host, int(port)), 5)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.sock.makefile("rb")

    def command(self, *words):
        self.sock.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in map(str.encode, words)))
        return self.read()

    def read(self):
        line = self.file.readline()
        if not line:
            raise ConnectionResetError("redis closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"$":
            n = int(rest)
            return None if n < 0 else self.file.read(n + 2)[:-2].decode()
        if kind == b"*":
            return [self.read() for _ in range(int(rest))]
        if kind == b"-":
            raise RuntimeError(rest.decode())
        return rest.decode()


def redis(address, *words):
    """One command over this thread's connection; a stale one is replaced once."""
    for fresh in (False, True):
        try:
            if fresh or not getattr(local, "redis", None):
                local.redis = Redis(address)
            return local.redis.command(*words)
        except OSError:
            local.redis = None
            if fresh:
                raise


class Cart(Service):
    def get(self, path, query):
        if not path.startswith("/cart/"):
            return self.reply(404, {"error": "no such cart"})
        try:
            items = redis(self.args.redis, "LRANGE", "cart:" + path[6:], "0", "4")
        except OSError as e:
            return self.reply(503, {"error": "redis: %s" % e})
        self.reply(200, {"items": items, "version": self.args.version})

    def post(self, path, query):
        if not path.startswith("/cart/"):
            return self.reply(404, {"error": "no such cart"})
        try:
            redis(self.args.redis, "LPUSH", "cart:" + path[6:], query.get("item", "tea"))
            redis(self.args.redis, "LTRIM", "cart:" + path[6:], "0", "4")
        except OSError as e:
            return self.reply(503, {"error": "redis: %s" % e})
        self.reply(200, {"ok": True, "version": self.args.version})


serve(Cart, redis="redis:6379")
