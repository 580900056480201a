"""For integration tests on loopback: free ports, processes that end with the test, certificates, and Envoy-shaped
configuration as Python values."""
import atexit, json, os, re, shutil, signal, socket, subprocess, tempfile, time, warnings

RUNFILES = os.path.join(os.environ.get("TEST_SRCDIR", ""), os.environ.get("TEST_WORKSPACE", "weft"))
TMP = tempfile.mkdtemp(prefix="weft.", dir="/tmp")  # short: a unix socket's path holds 107 characters
T = "type.googleapis.com/"
V3 = T + "envoy.extensions."
os.environ["PATH"] += ":/usr/sbin:/sbin"  # nft; Bazel's own PATH has no such folders
_started = []
warnings.simplefilter("ignore", ResourceWarning)


def binary(label):
    return os.path.join(RUNFILES, label.lstrip("/").replace(":", "/"))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def path(name):
    return os.path.join(TMP, name)


def write(name, text):
    with open(path(name), "w") as f:
        f.write(text if isinstance(text, str) else json.dumps(text))
    return path(name)


def start(*argv, log=None, **kw):
    out = open(path(log or os.path.basename(argv[0]) + "-%d.log" % len(_started)), "wb")
    p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True, **kw)
    p.log = out.name
    _started.append(p)
    return p


def stop(p, sig=signal.SIGTERM, timeout=15):
    if p.poll() is None:
        p.send_signal(sig)
        try:
            p.wait(timeout)
        except subprocess.TimeoutExpired:
            p.kill()
            p.wait()
    return p.returncode


@atexit.register
def _stop_all():
    """A sanitizer's report in any program's log fails the test, whatever it found (--config=asan, tsan, ubsan)."""
    sanitized = any(x in os.environ for x in ("ASAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS"))
    reports = ""
    for p in _started:
        stop(p, signal.SIGTERM if sanitized else signal.SIGKILL)
        text = open(p.log, errors="replace").read() if sanitized else ""
        if m := re.search(r"ERROR: \w+Sanitizer|WARNING: ThreadSanitizer|runtime error:", text):
            reports += "%s: %s\n" % (p.log, text[max(0, m.start() - 200):m.start() + 8000])
    shutil.rmtree(TMP, ignore_errors=True)
    if reports:
        print(reports, flush=True)
        os._exit(1)


def wait_port(port, process=None, seconds=20):
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return port
        except OSError:
            if process is not None and process.poll() is not None:
                raise RuntimeError("ended with %d: %s" % (process.returncode, open(process.log).read()[-3000:]))
            if time.monotonic() > end:
                raise TimeoutError("port %d did not open" % port)
            time.sleep(0.02)


def wait_for(what, probe, seconds=10):
    end = time.monotonic() + seconds
    while not (value := probe()):
        if time.monotonic() > end:
            raise TimeoutError("waited for " + what)
        time.sleep(0.02)
    return value


def run(*argv, timeout=60, **kw):
    return subprocess.run(argv, stdin=kw.pop("stdin", subprocess.DEVNULL), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout, **kw)


class Certs:
    """A CA and leaves with SPIFFE IDs, made by the openssl command line."""

    def __init__(self, name="ca"):
        self.name, self.ca, self.key = name, path(name + ".pem"), path(name + ".key")
        self.openssl("req", "-x509", *self.EC, "-keyout", self.key, "-out", self.ca, "-days", "30", "-subj", "/CN=test " + name,
                     "-addext", "keyUsage=critical,keyCertSign,cRLSign")

    EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]

    @staticmethod
    def openssl(*argv):
        r = run("openssl", *argv)
        if r.returncode:
            raise RuntimeError(r.stderr)

    def leaf(self, name, san):
        cert, key, ext = path(name + ".pem"), path(name + ".key"), write(name + ".ext", "subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\nkeyUsage=critical,digitalSignature\nbasicConstraints=critical,CA:FALSE\n" % san)
        self.openssl("req", *self.EC, "-keyout", key, "-out", path(name + ".csr"), "-subj", "/CN=" + name)
        self.openssl("x509", "-req", "-in", path(name + ".csr"), "-CA", self.ca, "-CAkey", self.key, "-CAcreateserial", "-out", cert, "-days", "30", "-extfile", ext)
        return cert, key


# ---- Envoy-shaped configuration
def any_(t, **kw):
    return {"@type": t if t.startswith(T) else V3 + t, **kw}


def addr(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def cluster(name, *ports, h2=False, tls=None, **kw):
    c = {"name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": {"cluster_name": name, "endpoints": [
        {"lb_endpoints": [{"endpoint": {"address": addr(p)}} for p in ports]}]}, **kw}
    if h2:
        c["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": any_(
            "upstreams.http.v3.HttpProtocolOptions", explicit_http_config={"http2_protocol_options": {}})}
    if tls:
        c["transport_socket"] = tls
    return c


def tls(cert, ca=None, server=False, alpn=("h2", "http/1.1"), sans=(), **kw):
    c = {"tls_params": {"tls_minimum_protocol_version": "TLSv1_3"}, "alpn_protocols": list(alpn)}
    if cert:
        c["tls_certificates"] = [{"certificate_chain": {"filename": cert[0]}, "private_key": {"filename": cert[1]}}]
    if ca:
        c["validation_context"] = {"trusted_ca": {"filename": ca}}
        if sans:
            c["validation_context"]["match_typed_subject_alt_names"] = [{"san_type": "URI", "matcher": {"exact": s}} for s in sans]
    kind = "DownstreamTlsContext" if server else "UpstreamTlsContext"
    return {"name": "tls", "typed_config": any_("transport_sockets.tls.v3." + kind, common_tls_context=c, **kw)}


def route(prefix, to, **action):
    return {"match": {"prefix": prefix}, "route": {"cluster": to, **action}}


def http(port, routes, transport=None, filters=(), **hcm):
    f = any_("filters.network.http_connection_manager.v3.HttpConnectionManager", stat_prefix="in",
             route_config={"name": "r", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
             http_filters=[*filters, {"name": "router", "typed_config": any_("filters.http.router.v3.Router")}], **hcm)
    return listener(port, {"name": "hcm", "typed_config": f}, transport)


def tcp(port, to, transport=None):
    return listener(port, {"name": "tcp", "typed_config": any_("filters.network.tcp_proxy.v3.TcpProxy", stat_prefix="t", cluster=to)}, transport)


def listener(port, network_filter, transport=None):
    chain = {"filters": [network_filter]}
    if transport:
        chain["transport_socket"] = transport
    return {"name": "l%d" % port, "address": addr(port), "filter_chains": [chain]}


class Sidecar:
    """The built sidecar with a static configuration; admin on a unix socket."""

    def __init__(self, listeners, clusters, flags=(), **bootstrap):
        self.sock = path("admin-%d.sock" % len(_started))
        conf = write("sidecar-%d.json" % len(_started), {
            "node": {"id": "test", "cluster": "test"}, "static_resources": {"listeners": listeners, "clusters": clusters},
            "admin": {"address": {"pipe": {"path": self.sock}}}, **bootstrap})
        self.process = start(binary("//sidecar:sidecar"), "-c", conf, "--concurrency", "1", "-l", "info", *flags, log="sidecar-%d.log" % len(_started))
        for l in listeners:
            wait_port(l["address"]["socket_address"]["port_value"], self.process)

    def admin(self, what, method="GET"):
        return run("curl", "-sS", "-X", method, "--unix-socket", self.sock, "http://localhost" + what).stdout

    def stat(self, name):
        for line in self.admin("/stats?filter=^%s$" % name.replace(".", "\\.")).splitlines():
            return int(line.rsplit(": ", 1)[1])
        return None

    def log(self):
        return open(self.process.log).read()
