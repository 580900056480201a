"""The server as a process: what it acknowledged survives SIGKILL, one data directory has one server, SIGTERM is clean."""
import json, os, re, signal, stat, subprocess, tempfile, threading, unittest, urllib.error, urllib.request

from cases import *
from loopback import *

SERVER = binary("//xds_server:xds_server")


class Server:
    def __init__(self, data):
        self.data = data
        self.p = start(SERVER, "--data-dir", data, "--http-address", "127.0.0.1:0", "--xds-address", "127.0.0.1:0", "--otlp-grpc-address", "",
                       "--otlp-http-address", "", "-l", "warning", stdout=subprocess.PIPE, text=True)
        line = self.p.stdout.readline()  # printed when everything listens
        m = re.match(r"xds_server ready http=127.0.0.1:(\d+)", line)
        assert m, line
        self.port = int(m[1])

    def call(self, method, path, body=None, kind="application/yaml"):
        q = urllib.request.Request("http://127.0.0.1:%d%s" % (self.port, path), method=method, data=body.encode() if body else None)
        if method != "GET":
            with open(self.data + "/api-token") as f:
                q.add_header("Authorization", "Bearer " + f.read().strip())
            q.add_header("Content-Type", kind)
        with urllib.request.urlopen(q, timeout=20) as r:
            return json.load(r)

    def end(self, sig):
        self.p.send_signal(sig)
        rc = self.p.wait(20)
        self.p.stdout.close()
        return rc


def policy(name, weight):
    return ("apiVersion: weft/v1\nkind: Route\nmetadata: {name: %s}\nspec:\n  rules:\n  - to: [{version: v1, weight: %d}, {version: v2, weight: 1}]\n"
            % (name, weight))


class ServerTest(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(dir=TMP)
        self.addCleanup(end_all)

    def server(self):
        return Server(self.dir + "/data")

    def test_acknowledged_changes_survive_sigkill(self):
        acknowledged, weight, token, root = {}, 0, None, None
        for life in range(6):
            s = self.server()
            for name, (revision, w) in acknowledged.items():
                o = s.call("GET", "/api/v1/objects/Route/default/" + name)
                self.assertGreaterEqual(o["metadata"]["revision"], revision)
                # The write that was under way when the server was killed may have been taken, too.
                self.assertIn(o["spec"]["rules"][0]["to"][0]["weight"], (w, weight))
            history = s.call("GET", "/api/v1/history?limit=1000")["revisions"]
            newest = history[0]["revision"] if history else 0
            self.assertEqual([r["revision"] for r in history], list(range(newest, max(0, newest - 1000), -1)))
            bundle = s.call("GET", "/api/v1/trust-bundle")["root_sha256"]
            self.assertEqual(root or bundle, bundle)
            root = bundle
            if token:
                s.call("DELETE", "/api/v1/tokens/" + token["id"])  # 404 would raise
            token = s.call("POST", "/api/v1/tokens", '{"service": "cart"}', "application/json")

            killer = threading.Timer(0.05 + 0.07 * life, lambda: s.p.send_signal(signal.SIGKILL))
            killer.start()
            try:
                while True:
                    weight += 1
                    name = "svc-%d" % (weight % 5)
                    acknowledged[name] = (s.call("POST", "/api/v1/apply", policy(name, weight))["revision"], weight)
            except (OSError, urllib.error.URLError, json.JSONDecodeError):
                pass  # killed
            except Exception as e:  # http.client's own, half an answer
                self.assertIn("http", type(e).__module__)
            killer.join()
            self.assertEqual(s.p.wait(20), -signal.SIGKILL)
            s.p.stdout.close()
        self.assertGreater(len(acknowledged), 1)

    def test_one_server_a_directory_and_a_clean_end(self):
        s = self.server()
        second = run(SERVER, "--data-dir", s.data, "--http-address", "127.0.0.1:0", "--xds-address", "127.0.0.1:0", timeout=20)
        self.assertEqual(second.returncode, 1)
        self.assertIn("another xds_server is using", second.stderr)
        for path, mode in (("", 0o700), ("/api-token", 0o600), ("/ca/root.key", 0o600), ("/server/key.pem", 0o600), ("/weft.db", 0o600)):
            self.assertEqual(stat.S_IMODE(os.stat(s.data + path).st_mode), mode, path)
        self.assertEqual(s.end(signal.SIGTERM), 0)

    def test_addresses_beyond_the_loopback_are_refused(self):
        for flag in ("--http-address", "--xds-plaintext-address"):
            addresses = {"--http-address": "127.0.0.1:0", "--xds-address": "127.0.0.1:0", "--otlp-grpc-address": "", "--otlp-http-address": ""}
            addresses[flag] = "0.0.0.0:0"
            r = run(SERVER, "--data-dir", self.dir + "/other", *(x for pair in addresses.items() for x in pair), timeout=20)
            self.assertEqual(r.returncode, 1, flag)
            self.assertIn("loopback", r.stderr)


if __name__ == "__main__":
    main()
