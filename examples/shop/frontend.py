#!/usr/bin/env python3
"""frontend: the shop's face; asks catalog, cart and checkout."""
import json
from web import Service, call, serve


class Frontend(Service):
    def get(self, path, query):
        user = query.get("user", "guest")
        if path == "/":
            status, items = call(self, "catalog", "/items")
            if status != 200:
                return self.reply(502, {"error": "catalog", "status": status})
            return self.reply(200, {"items": json.loads(items)["items"]})
        if path == "/cart":
            status, body = call(self, "cart", "/cart/" + user)
            return self.reply(status, body)
        if path == "/checkout":
            status, body = call(self, "checkout", "/quote?user=" + user)
            return self.reply(status, body)
        self.reply(404, {"error": "no such page"})

    def post(self, path, query):
        if path == "/cart":
            status, body = call(self, "cart", "/cart/%s?item=%s" % (query.get("user", "guest"), query.get("item", "tea")), "POST", b"")
            return self.reply(status, body)
        self.reply(404, {"error": "no such page"})


serve(Frontend)
