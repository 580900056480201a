"""What the loopback tests share: a sidecar process, HTTP backends, waiting for conditions without sleeping blindly."""
import http.client, http.server, json, os, re, shutil, signal, socket, subprocess, sys, tempfile, threading, time, traceback

STARTED = []  # processes, so that none is left when a test fails
# Built with --config=asan, tsan or ubsan (.bazelrc sets these): sizes and times mean nothing, and reports are looked for.
SANITIZED = any(x in os.environ for x in ("ASAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS"))


def start(*args, **kw):
    STARTED.append(subprocess.Popen(*args, **kw))
    return STARTED[-1]

SIDECAR = os.environ.get("SIDECAR", "sidecar/sidecar")
TMP = tempfile.mkdtemp(prefix="weft-test-")  # short: unix sockets live here
V3 = "type.googleapis.com/envoy."


def any_(name, **kw):
    return {"@type": V3 + name, **kw}


def address(port, host="127.0.0.1"):
    return {"socket_address": {"address": host, "port_value": port}}


def hcm(routes=None, rds=None, access_log=None, **kw):
    c = any_("extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", stat_prefix="in", http_filters=[
        {"name": "router", "typed_config": any_("extensions.filters.http.router.v3.Router")}], **kw)
    if rds:
        c["rds"] = {"route_config_name": rds, "config_source": {"ads": {}, "resource_api_version": "V3"}}
    else:
        c["route_config"] = {"name": "r", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]}
    if access_log:
        c["access_log"] = [{"name": "f", "typed_config": any_("extensions.access_loggers.file.v3.FileAccessLog", path=access_log)}]
    return {"name": "hcm", "typed_config": c}


def listener(name, flt, port=0, tls=None):
    chain = {"filters": [flt]}
    if tls:
        chain["transport_socket"] = tls
    return {"name": name, "address": address(port), "filter_chains": [chain]}


def cluster(name, *ports, **kw):
    return {"name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": endpoints(name, *ports), **kw}


def endpoints(name, *ports):
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(p)}} for p in ports]}]}


def route(cluster_name, prefix="/", **kw):
    return {"match": {"prefix": prefix}, "route": {"cluster": cluster_name, **kw}}


def until(what, condition, timeout=20):
    """Polls a condition that the machine brings about in its own time; fails with `what` and its last value."""
    end, last = time.time() + timeout, None
    while time.time() < end:
        try:
            last = condition()
            if last:
                return last
        except (OSError, http.client.HTTPException) as e:
            last = e
        time.sleep(0.02)
    raise AssertionError("%s: still not so after %d s (%r)" % (what, timeout, last))


class Backend:
    """An HTTP/1.1 server on an ephemeral port that answers with its name."""

    def __init__(self, name="backend"):
        outer = self
        self.name, self.requests, self.gate = name, [], threading.Event()
        self.gate.set()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                outer.requests.append((self.command, self.path, dict(self.headers), body))
                if self.path.startswith("/slow"):
                    outer.gate.wait(20)
                code = int(self.path.split("/")[2]) if self.path.startswith("/status/") else 200
                text = (outer.name + ":" + body.decode()).encode()
                self.send_response(code)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = answer

            def log_message(self, *a):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=10)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


class Sidecar:
    count = 0

    def __init__(self, bootstrap, *flags, ready=True):
        Sidecar.count += 1
        base = os.path.join(TMP, "sidecar%d" % Sidecar.count)
        self.log = base + ".log"
        bootstrap = json.loads(json.dumps(bootstrap))
        bootstrap.setdefault("node", {"id": "test-node", "cluster": "test"})
        bootstrap.setdefault("admin", {"address": address(0)})
        with open(base + ".json", "w") as f:
            json.dump(bootstrap, f)
        self.config = base + ".json"
        self.process = start([SIDECAR, "-c", self.config, "--concurrency", "2", "--admin-address-path", base + ".admin", *flags],
                                        stderr=open(self.log, "w"), stdout=subprocess.DEVNULL)
        self.admin_address = until("admin is up", lambda: self.alive() and open(base + ".admin").read())
        if ready:
            until("ready", lambda: self.alive() and self.admin("/ready")[0] == 200)

    def alive(self):
        if self.process.poll() is not None:
            raise AssertionError("sidecar ended with %d:\n%s" % (self.process.returncode, open(self.log).read()))
        return True

    def admin(self, path, method="GET", headers={}):
        c = UnixConnection(self.admin_address) if self.admin_address.startswith("/") else http.client.HTTPConnection(self.admin_address, timeout=10)
        c.request(method, path, headers=headers)
        r = c.getresponse()
        body = r.read().decode()
        c.close()
        return r.status, body

    def json(self, path):
        status, body = self.admin(path)
        assert status == 200, (path, status, body)
        return json.loads(body)

    def port(self, name):
        for line in self.admin("/listeners")[1].splitlines():
            if line.startswith(name + "::"):
                return int(line.rsplit(":", 1)[1])
        return 0

    def stat(self, name):
        for line in self.admin("/stats?filter=^" + name.replace(".", "\\.") + "$")[1].splitlines():
            return int(line.rsplit(" ", 1)[1])
        return 0

    def get(self, path="/", listener="l", method="GET", body=None, headers={}):
        c = http.client.HTTPConnection("127.0.0.1", self.port(listener), timeout=20)
        c.request(method, path, body=body, headers=headers)
        r = c.getresponse()
        text = r.read().decode()
        c.close()
        return r.status, text, dict(r.getheaders())

    def stop(self, sig=signal.SIGTERM, timeout=20):
        if self.process.poll() is None:
            self.process.send_signal(sig)
        return self.process.wait(timeout)


def check(*args):
    return subprocess.run([SIDECAR, *args], capture_output=True, text=True, timeout=60)


def make_ca(folder):
    """A CA and two leaves with SPIFFE URIs, made by the openssl tool."""
    os.makedirs(folder)
    run = lambda *a: subprocess.run(["openssl", *a], check=True, cwd=folder, capture_output=True)
    run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2",
        "-subj", "/CN=test ca", "-addext", "keyUsage=critical,keyCertSign")
    for name in ("server", "client"):
        run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", name + ".key", "-out", name + ".csr", "-subj", "/CN=" + name)
        with open(os.path.join(folder, name + ".ext"), "w") as f:
            f.write("subjectAltName=URI:spiffe://test/ns/default/sa/%s,DNS:%s.test\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n" % (name, name))
        run("x509", "-req", "-in", name + ".csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "1", "-extfile", name + ".ext", "-out", name + ".pem")
    return folder


def end_all():
    """Ends what a test left running; in order where a sanitizer wants to say what leaked."""
    for p in STARTED:
        if p.poll() is None and SANITIZED:
            p.terminate()
            try:
                p.wait(5)
            except subprocess.TimeoutExpired:
                pass
        if p.poll() is None:
            p.kill()
    STARTED.clear()


def sanitizer_reports():
    found = ""
    for f in sorted(os.listdir(TMP)):
        if f.endswith(".log"):
            with open(os.path.join(TMP, f), errors="replace") as log:
                text = log.read()
            m = re.search(r"ERROR: \w+Sanitizer|WARNING: ThreadSanitizer|runtime error:", text)
            if m:
                found += "%s: %s\n" % (f, text[max(0, m.start() - 200):m.start() + 8000])
    return found


def main(namespace):
    """Runs every test_* function; one line each, and the reason where one fails."""
    failed = 0
    only = sys.argv[1:]
    for name, fn in list(namespace.items()):
        if not name.startswith("test_") or (only and name not in only):
            continue
        start = time.time()
        try:
            fn()
            end_all()
            assert not sanitizer_reports(), sanitizer_reports()
            print("[       OK ] %s (%d ms)" % (name, (time.time() - start) * 1000), flush=True)
        except BaseException:
            failed += 1
            traceback.print_exc()
            print("[  FAILED  ] %s" % name, flush=True)
            for f in sorted(os.listdir(TMP)):
                if f.endswith(".log"):
                    print("--- " + f + "\n" + open(os.path.join(TMP, f)).read()[-4000:], flush=True)
        end_all()
    shutil.rmtree(TMP, ignore_errors=True)
    os._exit(1 if failed else 0)
