#!/usr/bin/env python3
"""catalog: what is for sale. /ws echoes over a WebSocket, for long-lived connections."""
from web import Service, serve

ITEMS = ["tea", "cup", "kettle", "honey", "lemon", "biscuit"]


class Catalog(Service):
    def get(self, path, query):
        if path == "/items":
            return self.reply(200, {"items": ITEMS})
        if path.startswith("/items/") and path[7:] in ITEMS:
            return self.reply(200, {"item": path[7:]})
        self.reply(404, {"error": "no such item"})


serve(Catalog)
