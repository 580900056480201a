"""The meshed shop: server, services, load; and the questions that promises ask of it."""

import glob
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

from outer import Outer, Result

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.path.join(ROOT, "bazel-bin")

# name, version, ports, readiness, command ({bin}: where the shop's programs are)
HTTP = "8000:http@80"
SHOP = [
    ("redis", "v1", "6379:tcp", "tcp",
     ["redis-server", "--port", "6379", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--appendonly", "no", "--dir", "/"]),
    ("catalog", "v1", HTTP, "http:/healthz", ["python3", "{bin}/catalog.py"]),
    ("catalog", "v1", HTTP, "http:/healthz", ["python3", "{bin}/catalog.py"]),
    ("cart", "v1", HTTP, "http:/healthz", ["python3", "{bin}/cart.py", "--version", "v1"]),
    ("cart", "v2", HTTP, "http:/healthz", ["python3", "{bin}/cart.py", "--version", "v2"]),
    ("pricing", "v1", "50051:grpc", "tcp", ["{bin}/pricing"]),
    ("pricing", "v1", "50051:grpc", "tcp", ["{bin}/pricing"]),
    ("checkout", "v1", HTTP, "http:/healthz", ["{bin}/checkout"]),
    ("frontend", "v1", HTTP, "http:/healthz", ["python3", "{bin}/frontend.py"]),
]
MIX = "GET /,GET /cart?user=$u,POST /cart?user=$u&item=tea,GET /checkout?user=$u"


class Unmet(AssertionError):
    """A promise that does not hold, with what was seen instead."""


class Skip(Exception):
    """This machine cannot do it; the message names why."""


class Workload:
    def __init__(self, mesh, service, version, pid, log, argv):
        self.mesh, self.service, self.version, self.pid, self.log, self.argv = mesh, service, version, pid, log, argv

    @property
    def state(self):
        """instance.json of the running instance, None before there is one."""
        for f in glob.glob(self.mesh.dir + "/run/*/instance.json"):
            try:
                with open(f) as i:
                    j = json.load(i)
            except (OSError, ValueError):
                continue
            if j["supervisor"] == self.pid:
                return j
        return None

    def run(self, argv, timeout=30, stdin="", user=False):
        """In its network namespace with its resolv.conf, as root, or as the application's user without capabilities."""
        return self.background(argv, timeout, stdin, user)()

    def background(self, argv, timeout=30, stdin="", user=False):
        app = str(self.state["app"])
        enter = ["nsenter", "-t", app, "--net", "--mount", "--"]
        if user:
            uid = self.mesh.outer.run(["stat", "-c", "%u", "/proc/" + app]).out.strip()
            enter += ["setpriv", "--reuid", uid, "--regid", uid, "--clear-groups", "--no-new-privs", "--bounding-set", "-all",
                      "--inh-caps", "-all", "--"]
        return self.mesh.outer.background(enter + argv, timeout, stdin)

    def admin(self, path, method="GET"):
        r = self.mesh.outer.run(["curl", "-sS", "-m", "5", "-X", method, "--unix-socket", self.state["admin_socket"], "http://admin" + path])
        if r.rc != 0:
            raise Unmet("admin of %s: %s" % (self.service, r.err.strip()))
        return r.out

    def kill(self, sig=signal.SIGKILL):
        """The whole instance: supervisor, sidecar and application."""
        self.mesh.outer.signal(self.pid, sig)

    def kill_app(self, sig=signal.SIGKILL):
        self.mesh.outer.signal(self.state["app"], sig)


class Mesh:
    def __init__(self, directory, port=8080, server_flags=()):
        self.dir, self.server_flags, self.revision = directory, list(server_flags), 0
        self.workloads, self.server_pid, self.outer = [], None, None
        shutil.rmtree(directory, ignore_errors=True)  # what an earlier run left: files only, see outer.py
        for d in ("", "/bin", "/logs", "/tokens", "/data"):
            os.makedirs(directory + d, exist_ok=True)
        os.chmod(directory, 0o755)
        os.chmod(directory + "/tokens", 0o700)
        os.chmod(directory + "/data", 0o700)
        self.listener = socket.create_server(("127.0.0.1", port), backlog=128)
        self.port = self.listener.getsockname()[1]
        self.url = "http://127.0.0.1:%d" % self.port

    # ---- life

    def start(self):
        for f in glob.glob(ROOT + "/examples/shop/*.py") + [BIN + "/examples/shop/" + b for b in ("pricing", "checkout", "loadgen", "grpc_client")]:
            target = self.dir + "/bin/" + os.path.basename(f)
            shutil.copyfile(f, target)
            os.chmod(target, 0o755)
        self.outer = Outer(pass_fds=[self.listener.fileno()])
        self.must(self.outer.run([BIN + "/tools/weft/weft", "network", "up"]), "make the bridge")
        self.start_server()

    def start_server(self, wait=20):
        argv = [os.path.realpath(BIN + "/xds_server/xds_server"), "--data-dir", self.dir + "/data",
                "--http-fd", str(self.listener.fileno()), "--xds-address", "10.77.0.1:15012",
                "--otlp-grpc-address", "10.77.0.1:4317", "--otlp-http-address", "10.77.0.1:4318", *self.server_flags]
        self.server_pid = self.outer.spawn(argv, self.dir + "/logs/xds_server.log", fds=[self.listener.fileno()])
        self.until(self.healthy, wait, "the server does not answer (see %s/logs/xds_server.log)" % self.dir, every=0.05)

    def healthy(self):
        rc = self.outer.exited.get(self.server_pid)
        if rc is not None:
            with open(self.dir + "/logs/xds_server.log", errors="replace") as f:
                raise Unmet("the server ended with %s: %s" % (rc, f.read()[-500:]))
        try:
            return urllib.request.urlopen(self.url + "/healthz", timeout=2).status == 200
        except OSError:
            return False

    def kill_server(self, sig=signal.SIGKILL):
        self.outer.signal(self.server_pid, sig)
        self.outer.wait(self.server_pid, 10)

    def token(self, service, namespace="default"):
        t = self.api("POST", "/api/v1/tokens", {"service": service, "namespace": namespace, "ttl_s": 3600, "uses": 1})["token"]
        path = "%s/tokens/%s-%d" % (self.dir, service, len(self.workloads))
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
            f.write(t + "\n")
        return path

    def run(self, service, version, port, ready, command, flags=(), token=None, enter=()):
        """Starts a workload; does not wait. enter: how its command line begins, see namespace()."""
        log = "%s/logs/%s-%d.log" % (self.dir, service, len(self.workloads))
        argv = [*enter, BIN + "/tools/weft/weft", "run", "--service", service, "--version", version, "--run-dir", self.dir + "/run",
                "--join-token-file", token or self.token(service), "--xds-server", "10.77.0.1:15012", "--restart", *flags]
        if port:
            argv += ["--port", port, "--ready", ready]
        argv += ["--"] + [a.format(bin=self.dir + "/bin") for a in command]
        w = Workload(self, service, version, self.outer.spawn(argv, log), log, argv)
        self.workloads.append(w)
        return w

    def start_shop(self):
        for entry in SHOP:
            self.run(*entry)
        # Where the questions are asked from: a workload that does nothing by itself.
        self.client = self.run("client", "v1", None, None, ["sleep", "infinity"])

    def await_shop(self, seconds=60):
        want = len(SHOP)
        self.until(lambda: len(self.active()) >= want, seconds,
                   lambda: "%d of %d workloads serve: %s" % (len(self.active()), want, self.silent()))
        self.until(lambda: (self.client.state or {}).get("app"), seconds, "the client's sidecar is not ready")

    def silent(self):
        """Services that have an instance which is not active, with the last line of their logs."""
        out = []
        active = {w["id"] for w in self.active()}
        for w in self.workloads:
            s = w.state
            if s and s["id"] in active or w.service == "client":
                continue
            with open(w.log, errors="replace") as f:
                lines = f.read().strip().splitlines()
            out.append("%s (%s)" % (w.service, lines[-1][:200] if lines else "no word"))
        return ", ".join(out)

    def start_load(self, rate=40):
        return self.run("loadgen", "v1", None, None,
                        ["{bin}/loadgen", "--host", "frontend", "--mix", MIX, "--rate", str(rate), "--connections", "4"])

    def close(self):
        if self.outer:
            self.outer.close()
        self.listener.close()

    def namespace(self, name, *addresses):
        """A named namespace on the bridge without a sidecar of ours; returns how a command line in it begins."""
        for line in ("netns add " + name, "link add v-%s type veth peer name eth0 netns %s" % (name, name), "link set v-%s master weft0 up" % name,
                     "-n %s link set lo up" % name, "-n %s link set eth0 up" % name,
                     *("-n %s addr add %s dev eth0" % (name, a + "/64 nodad" if ":" in a else a + "/16") for a in addresses),
                     *("-n %s route add default via 10.77.0.1" % name for a in addresses if ":" not in a)):
            self.must(self.outer.run(["ip", *line.split()]), "make the namespace " + name)
        return ["ip", "netns", "exec", name]

    # ---- questions

    def api(self, method, path, body=None, kind="application/json", ok=True):
        """JSON of the server's answer; with ok=False (status, JSON)."""
        data = None if body is None else body.encode() if isinstance(body, str) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, method=method)
        if method != "GET":
            request.add_header("Content-Type", kind)
            with open(self.dir + "/data/api-token") as f:
                request.add_header("Authorization", "Bearer " + f.read().strip())
        try:
            with urllib.request.urlopen(request, timeout=20) as r:
                status, text = r.status, r.read().decode()
        except urllib.error.HTTPError as e:
            status, text = e.code, e.read().decode()
        try:
            answer = json.loads(text)
        except ValueError:
            answer = {"text": text}
        if not ok:
            return status, answer
        if status >= 300:
            raise Unmet("%s %s: %d %s" % (method, path, status, text[:500]))
        return answer

    def apply(self, text):
        answer = self.api("POST", "/api/v1/apply", text, "application/yaml")
        self.revision = answer["revision"]
        return answer

    def delete(self, kind, name, namespace="default"):
        return self.api("DELETE", "/api/v1/objects/%s/%s/%s" % (kind, namespace, name), ok=False)

    def active(self, service=None):
        """Workloads that are endpoints now; those without a port (the client, the load) never are."""
        return [w for w in self.api("GET", "/api/v1/workloads")["workloads"]
                if w["active"] and w["ports"] and (service is None or w["service"] == service)]

    def status(self):
        return self.api("GET", "/api/v1/status")["sidecars"]

    def await_push(self, revision=None, seconds=5):
        """Seconds until every connected sidecar has acknowledged the revision (default: of the last apply)."""
        revision = self.revision if revision is None else revision
        start = time.monotonic()
        self.until(lambda: all(s["synced"] and s["revision"] >= revision for s in self.status() if s["connected"]), seconds,
                   lambda: "not in force everywhere: %s" % [s["node"] for s in self.status() if s["connected"] and not (s["synced"] and s["revision"] >= revision)],
                   every=0.02)
        return time.monotonic() - start

    def weft(self, *args, stdin=None):
        p = subprocess.run([BIN + "/tools/weft/weft", *args], capture_output=True, text=True, timeout=60, input=stdin,
                           env={**os.environ, "WEFT_SERVER": self.url, "WEFT_TOKEN_FILE": self.dir + "/data/api-token"})
        return Result(p.returncode, p.stdout, p.stderr)

    def of(self, service, version=None):
        return [w for w in self.workloads if w.service == service and (version is None or w.version == version) and w.state]

    def curl(self, *args, user=False):
        """From the client's namespace: (status, headers in lower case, body). Status 0: no answer."""
        r = self.client.run(["curl", "-sS", "-m", "20", "-D", "-", *args], user=user)
        head, _, body = r.out.partition("\r\n\r\n")
        while head.startswith("HTTP/1.1 1"):
            head, _, body = body.partition("\r\n\r\n")
        lines = head.split("\r\n")
        if r.rc != 0 or not lines[0].startswith("HTTP/"):
            return 0, {}, r.err
        return int(lines[0].split()[1]), {k.lower(): v.strip() for k, _, v in (l.partition(":") for l in lines[1:])}, body

    def load(self, host, requests, mix="GET /", connections=8, rate=0, cancel=0, headers=(), timeout=300, frm=None):
        """A load from the client's namespace; call the result for loadgen's own counts."""
        argv = [self.dir + "/bin/loadgen", "--host", host, "--mix", mix, "--requests", str(requests), "--connections", str(connections),
                "--rate", str(rate), "--cancel-percent", str(cancel), "--quiet"]
        for h in headers:
            argv += ["--header", h]
        running = (frm or self.client).background(argv, timeout)

        def counts():
            r = running()
            try:
                return json.loads(r.out.strip().splitlines()[-1])
            except (ValueError, IndexError):
                raise Unmet("loadgen: rc %d %s %s" % (r.rc, r.out[-300:], r.err[-300:]))

        return counts

    # ---- patience

    @staticmethod
    def until(condition, seconds, otherwise, every=0.1):
        end = time.monotonic() + seconds
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > end:
                raise Unmet(otherwise() if callable(otherwise) else otherwise)
            time.sleep(every)

    @staticmethod
    def must(result, what):
        if result.rc != 0:
            raise Unmet("cannot %s: %s" % (what, (result.err or result.out).strip()[-500:]))
        return result


def expect(condition, otherwise):
    if not condition:
        raise Unmet(otherwise() if callable(otherwise) else otherwise)


def ok_of(counts):
    """Requests of a load that were answered with 2xx."""
    return sum(n for status, n in counts.get("status", {}).items() if status.startswith("2"))
