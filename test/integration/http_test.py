"""What a route may say, through the real process: headers, answers of its own, timeouts, retries."""
import socket, unittest

from cases import *
from envoy_config import *
from loopback import *


def curl(port, what="/", *flags):
    """(status, body, headers)"""
    r = run("curl", "-sS", "-m", "20", "-D", "-", *flags, "http://127.0.0.1:%d%s" % (port, what))
    if r.returncode:
        return 0, r.stderr, {}
    head, _, body = r.stdout.replace("\r\n", "\n").partition("\n\n")
    lines = head.split("\n")
    return int(lines[0].split()[1]), body, {k.lower(): v.strip() for k, _, v in (l.partition(":") for l in lines[1:])}


class Http(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        need("curl")
        cls.back = Backend()
        retry = {"retry_on": "5xx,connect-failure", "num_retries": 2}
        routes = [route("/retry/", "back", prefix_rewrite="/", retry_policy=retry), route("/timeout/", "back", prefix_rewrite="/", timeout="0.3s"),
                  route("/dead", "dead"), {"match": {"prefix": "/direct"}, "direct_response": {"status": 418, "body": {"inline_string": "teapot"}}},
                  route("/gone", "nowhere"), route("/", "back", timeout="10s")]
        rbac = named("rbac", "filters.http.rbac.v3.RBAC", rules={"action": "DENY", "policies": {"no-secrets": {
            "permissions": [{"url_path": {"path": {"prefix": "/secret"}}}], "principals": [{"any": True}]}}})
        cls.sidecar = Sidecar(static([listener("l", hcm(routes, filters=[rbac], access_log=file_log(path("access.log"))))],
                                     [cluster("back", cls.back.port), cluster("dead", free_port())]))
        cls.front = cls.sidecar.port("l")

    def test_get_and_headers(self):
        status, _, headers = curl(self.front, "/hello?x=1", "-H", "x-envoy-internal: spoofed", "-H", "Connection: x-hop", "-H", "x-hop: 1")
        self.assertEqual(status, 200)
        seen = self.back.requests[-1]
        self.assertEqual(seen.path, "/hello?x=1")
        for h in ("x-request-id", "x-forwarded-proto"):
            self.assertIn(h, seen.headers)
        for h in ("x-hop", "connection"):
            self.assertNotIn(h, seen.headers)
        self.assertIn("x-envoy-upstream-service-time", headers)

    def test_head(self):
        self.assertEqual(curl(self.front, "/x", "-I")[0], 200)

    def test_local_replies_and_flags(self):
        self.assertEqual(curl(self.front, "/direct")[:2], (418, "teapot"))
        self.assertEqual(curl(self.front, "/secret/x")[:2], (403, "RBAC: access denied"))
        status, body, _ = curl(self.front, "/dead")
        self.assertEqual(status, 503)
        self.assertTrue(body.startswith("upstream connect error or disconnect/reset before headers"), body)
        self.assertEqual(curl(self.front, "/gone")[0], 503)
        self.back.gate.clear()
        self.assertEqual(curl(self.front, "/timeout/slow")[:2], (504, "upstream request timeout"))
        self.back.gate.set()
        self.assertEqual(curl(self.front, "/drop")[0], 503)
        flags = (" 503 URX,UF ", " 504 UT ", " 503 URX,UC ", " 503 NC ")
        wait_for("flags in the access log", lambda: (lambda text: all(f in text for f in flags))(read("access.log")))

    def test_retries(self):
        self.assertEqual(curl(self.front, "/retry/flaky")[0], 200)
        self.assertEqual(self.back.asked("/flaky") % 2, 0)
        self.assertEqual(curl(self.front, "/retry/status/500")[0], 500)

    def test_two_requests_on_one_connection_and_pipelining(self):
        with socket.create_connection(("127.0.0.1", self.front), 5) as s:
            s.sendall(b"POST /a HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\na" b"POST /b HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\nConnection: close\r\n\r\nb")
            data = b""
            while chunk := s.recv(65536):
                data += chunk
        self.assertEqual(data.count(b"HTTP/1.1 200"), 2)
        self.assertLess(data.index(b"backend:a"), data.index(b"backend:b"))


if __name__ == "__main__":
    main()
