"""What the tests on loopback share: programs that end with the test, free ports, conditions awaited without blind sleeps,
certificates, an HTTP backend, and the built sidecar."""
import atexit, collections, http.client, http.server, itertools, json, os, random, re, shutil, signal, socket, subprocess, tempfile, threading, time
import unittest, warnings

__all__ = """Backend Certs NOT_JUDGED RUNFILES SANITIZED SIDECAR Sidecar TMP binary end_all free_port need path pattern read run spiffe start stop wait_for
wait_port write""".split()
RUNFILES = os.path.join(os.environ.get("TEST_SRCDIR", ""), os.environ.get("TEST_WORKSPACE", "weft"))
TMP = tempfile.mkdtemp(prefix="weft.", dir="/tmp")  # short: a unix socket's path holds 107 characters
# Built with --config=asan, tsan or ubsan (.bazelrc sets these): sizes and times mean nothing, and reports are looked for.
SANITIZED = any(x in os.environ for x in ("ASAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS"))
_running = []
_claims = []
_numbers = itertools.count(1)
warnings.simplefilter("ignore", ResourceWarning)


def path(name):
    return os.path.join(TMP, name)


def write(name, text):
    with open(path(name), "w") as f:
        f.write(text if isinstance(text, str) else json.dumps(text))
    return path(name)


def read(name):
    with open(path(name), errors="replace") as f:
        return f.read()


# ---- programs
def binary(label):
    return os.path.join(RUNFILES, label.lstrip("/").replace(":", "/"))


def need(*programs):
    """A program that this machine lacks is a skip that names it."""
    for p in programs:
        if not shutil.which(p):
            raise unittest.SkipTest(p + " is not installed")


def run(*argv, input="", timeout=90, **kw):
    return subprocess.run(argv, **{"input": input, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": timeout, "text": True, "errors": "replace", **kw})


# For programs of the tests that are made of gRPC, which is not instrumented: what it carries looks like a race.
NOT_JUDGED = {**os.environ, "TSAN_OPTIONS": "report_bugs=0"}


def start(*argv, log=None, **kw):
    """Its output goes to a log, which is shown when a test fails."""
    log = path(log or "%s-%d.log" % (os.path.basename(argv[0]), next(_numbers)))
    with open(log, "ab") as out:
        p = subprocess.Popen(argv, **{"stdin": subprocess.DEVNULL, "stdout": out, "stderr": out, **kw})
    p.log = log
    _running.append(p)
    return p


def stop(p, sig=signal.SIGTERM, timeout=20):
    """Its exit status; a program that does not end when told to is killed."""
    if p.poll() is None:
        p.send_signal(sig)
        try:
            p.wait(timeout)
        except subprocess.TimeoutExpired:
            p.kill()
            p.wait()
    return p.returncode


def end_all():
    """Ends what is still running; in order where a sanitizer wants to say what leaked."""
    for p in reversed(_running):
        stop(p, signal.SIGTERM if SANITIZED else signal.SIGKILL)
    _running.clear()


@atexit.register
def _clean_up():
    end_all()
    shutil.rmtree(TMP, ignore_errors=True)


def logs():
    """(name, text) of everything that the programs have said."""
    return [(f, read(f)) for f in sorted(os.listdir(TMP)) if f.endswith(".log")]


def sanitizer_reports():
    found = ""
    for f, text in logs() if SANITIZED else ():
        if m := re.search(r"ERROR: \w+Sanitizer|WARNING: ThreadSanitizer|runtime error:", text):
            found += "%s: %s\n" % (f, text[max(0, m.start() - 200):m.start() + 8000])
    return found


# ---- waiting
def wait_for(what, condition, seconds=20):
    """Polls a condition that the machine brings about in its own time; fails with `what` and its last value."""
    end, last = time.monotonic() + seconds, None
    while True:
        try:
            last = condition()
            if last:
                return last
        except (OSError, http.client.HTTPException) as e:
            last = e
        if time.monotonic() > end:
            raise AssertionError("%s: still not so after %d s (%r)" % (what, seconds, last))
        time.sleep(0.02)


def wait_port(port, process=None, seconds=20):
    def open_():
        if process is not None and process.poll() is not None:
            raise AssertionError("ended with %d: %s" % (process.returncode, read(process.log)[-3000:]))
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except ConnectionResetError:
            pass  # who listens there has ended it already
        return port

    return wait_for("port %d is open" % port, open_, seconds)


def free_port():
    """For who cannot be given port 0: free for TCP and UDP, below the range that connections are given theirs from, and told to no
    other test while this one runs, so that a port on which nobody listens stays one."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            claim = socket.socket(socket.AF_UNIX)
            try:
                claim.bind("\0weft-test-port-%d" % port)  # an abstract name: it ends with this process
                udp.bind(("127.0.0.1", port))
                tcp.bind(("127.0.0.1", port))
            except OSError:
                claim.close()
                continue
        _claims.append(claim)
        return port


# ---- certificates
def spiffe(service, namespace="default"):
    return "spiffe://mesh/ns/%s/sa/%s" % (namespace, service)


class Certs:
    """A CA and its leaves, made by the openssl program, so that nothing of ours vouches for ours."""
    EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]

    def __init__(self, name="ca"):
        need("openssl")
        self.name, self.ca, self.key = name, path(name + ".pem"), path(name + ".key")
        self.openssl("req", "-x509", *self.EC, "-keyout", self.key, "-out", self.ca, "-days", "2", "-subj", "/CN=test " + name,
                     "-addext", "keyUsage=critical,keyCertSign,cRLSign")

    @staticmethod
    def openssl(*argv):
        r = run("openssl", *argv)
        if r.returncode:
            raise RuntimeError(r.stderr)

    def leaf(self, name, san, subject="/"):
        """(certificate, key). Without a subject, as SPIFFE identities are, the names in `san` have to be critical."""
        base = "%s-%s" % (self.name, name)
        cert, key, request = path(base + ".pem"), path(base + ".key"), path(base + ".csr")
        ext = write(base + ".ext", "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n"
                                   "subjectAltName=%s%s\n" % ("critical," if subject == "/" else "", san))
        self.openssl("req", *self.EC, "-keyout", key, "-out", request, "-subj", subject)
        self.openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self.key, "-CAcreateserial", "-out", cert, "-days", "1", "-extfile", ext)
        return cert, key


# ---- peers
Request = collections.namedtuple("Request", "method path headers body")


class Backend:
    """An HTTP/1.1 server that keeps what it was asked and answers with its name and the body it got; /status/N, /bytes/N (so
    many), /slow (waits for `gate`), /drop (closes without an answer), /flaky (503 every other time)."""

    def __init__(self, name="backend"):
        outer = self
        self.name, self.requests, self.gate = name, [], threading.Event()
        self.gate.set()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # head and body are two writes

            def body(self):
                if self.headers.get("transfer-encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("content-length") or 0))
                out = b""
                while size := int(self.rfile.readline(), 16):
                    out += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return out

            def answer(self):
                body = self.body()
                outer.requests.append(Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                word, _, number = self.path[1:].partition("/")
                if word == "drop":
                    self.close_connection = True
                    return self.connection.shutdown(socket.SHUT_RDWR)
                if word == "slow":
                    outer.gate.wait(20)
                status = int(number) if word == "status" else 503 if word == "flaky" and outer.asked("/flaky") % 2 else 200
                text = pattern(int(number)) if word == "bytes" else outer.name.encode() + b":" + body
                self.send_response(status)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(text)

            do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = answer

            def log_message(self, *a):
                pass

        class Server(http.server.ThreadingHTTPServer):
            request_queue_size = 512
            daemon_threads = True

            def handle_error(self, request, client_address):
                pass  # a peer that left is not news

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def asked(self, path):
        return sum(r.path == path for r in self.requests)

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def pattern(size):
    """Bytes whose order can be told."""
    return (bytes(i * 7 & 255 for i in range(1000)) * (size // 1000 + 1))[:size]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=10)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


SIDECAR = binary("//sidecar:sidecar")


class Sidecar:
    """The built sidecar with a bootstrap; admin on a free port unless the bootstrap says where."""

    def __init__(self, bootstrap, *flags, workers=2, ready=True):
        name = "sidecar%d" % next(_numbers)
        self.config = write(name + ".json", {"node": {"id": "test-node", "cluster": "test"}, "admin": {"address": {
            "socket_address": {"address": "127.0.0.1", "port_value": 0}}}, **bootstrap})
        self.process = start(SIDECAR, "-c", self.config, "--concurrency", str(workers), "--admin-address-path", path(name + ".admin"), *flags, log=name + ".log")
        self.admin_address = wait_for("admin is up", lambda: self.alive() and read(name + ".admin"), 60)
        if ready:
            wait_for("ready", lambda: self.alive() and self.admin("/ready")[0] == 200)

    def alive(self):
        if self.process.poll() is not None:
            raise AssertionError("sidecar ended with %d:\n%s" % (self.process.returncode, self.log()))
        return True

    def admin(self, path, method="GET", headers={}):
        c = _UnixConnection(self.admin_address) if self.admin_address.startswith("/") else http.client.HTTPConnection(self.admin_address, timeout=10)
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
        """That a listener was given; 0 while it does not listen."""
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

    def log(self):
        return read(self.process.log)

    def stop(self, sig=signal.SIGTERM, timeout=20):
        """Its exit status. Unlike stop(): one that does not end by itself fails the test."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
        return self.process.wait(timeout)
