"""A static Envoy file through the real process: serving, admin, access log, TLS, draining."""
import http.client, json, os, re, signal, socket, ssl, threading

from cases import *
from envoy_config import *
from loopback import *


def test_validate_says_ok_or_names_the_place():
    good = write("good.yaml", static([listener("l", hcm([route("/", "c")]))], [cluster("c", 1)]))
    r = run(SIDECAR, "--mode", "validate", "-c", good)
    assert (r.returncode, r.stdout) == (0, "configuration '%s' OK\n" % good), r
    bad = write("bad.yaml", "static_resources:\n  clusters:\n  - name: c\n    lb_polcy: RANDOM\n")
    r = run(SIDECAR, "--mode", "validate", "-c", bad)
    assert r.returncode == 1 and bad in r.stderr and "static_resources.clusters[0]" in r.stderr and "lb_polcy" in r.stderr, r
    r = run(SIDECAR, "-c", path("none.yaml"))
    assert r.returncode == 1 and "none.yaml" in r.stderr, r
    r = run(SIDECAR)
    assert r.returncode == 1 and "bootstrap" in r.stderr, r
    r = run(SIDECAR, "-c", good, "-l", "loud")
    assert r.returncode == 1 and "--log-level" in r.stderr, r


def test_http_is_proxied_and_logged():
    b = Backend("b1")
    log = path("access.txt")
    s = Sidecar(static([listener("l", hcm([route("/dead", "dead"), route("/", "c")], access_log=file_log(log)))], [cluster("c", b.port), cluster("dead", 1)]))
    status, body, headers = s.get("/x?y=1", method="POST", body="hello")
    assert (status, body) == (200, "b1:hello"), (status, body)
    assert headers["server"] == "envoy" and "x-envoy-upstream-service-time" in headers, headers
    assert b.requests[0][:2] == ("POST", "/x?y=1") and "x-request-id" in b.requests[0].headers
    assert s.get("/status/404")[0] == 404
    status, body, _ = s.get("/dead")
    assert status == 503 and "upstream connect error" in body, (status, body)
    lines = wait_for("the access log is written", lambda: (lambda t: len(t) == 3 and t)(open(log).read().splitlines()))
    post, dead = (next(l for l in lines if what in l) for what in ("POST", "/dead"))  # two workers: in whatever order
    assert re.match(r'\[\d{4}-\d\d-\d\dT[\d:.]+Z\] "POST /x\?y=1 HTTP/1.1" 200 - 5 8 \d+ \d+ "-" "-" "[0-9a-f-]{36}" "127.0.0.1:\d+" "127.0.0.1:%d"$' % b.port, post), post
    assert ' 503 URX,UF ' in dead, dead  # Envoy's order of flags: by their value
    assert s.stat("cluster.c.upstream_rq_2xx") == 1 and s.stat("cluster.c.upstream_rq_4xx") == 1, s.admin("/stats")[1]
    assert s.stop() == 0


def test_admin_answers_like_envoys():
    b = Backend()
    s = Sidecar(static([listener("l", hcm([route("/", "c")]))], [cluster("c", b.port)]))
    s.get("/")
    info = s.json("/server_info")
    assert info["state"] == "LIVE" and info["node"]["id"] == "test-node" and info["command_line_options"]["concurrency"] == 2, info
    assert "cluster.c.upstream_rq_total: 1" in s.admin("/stats")[1].splitlines()
    dump = s.json("/config_dump")["configs"]
    kinds = [c["@type"].rsplit(".", 1)[1] for c in dump]
    assert kinds[:2] == ["BootstrapConfigDump", "ClustersConfigDump"] and "ListenersConfigDump" in kinds, kinds
    assert dump[1]["static_clusters"][0]["cluster"]["name"] == "c", dump[1]
    assert s.json("/config_dump?resource=static_listeners")["configs"][0]["listener"]["name"] == "l"
    assert s.admin("/config_dump?resource=nonsense")[0] == 404
    assert "c::127.0.0.1:%d::" % b.port in s.admin("/clusters")[1]
    host = s.json("/clusters?format=json")["cluster_statuses"][0]["host_statuses"][0]
    assert host["address"]["socket_address"]["port_value"] == b.port, host
    assert any(m.get("name") == "rq_total" and m["value"] == "1" for m in host["stats"]), host
    assert s.json("/listeners?format=json")["listener_statuses"][0]["local_address"]["socket_address"]["port_value"] == s.port("l")
    text = s.admin("/stats/prometheus")[1]
    assert re.search(r'^envoy_cluster_upstream_rq_total\{envoy_cluster_name="c"\} 1$', text, re.M), text
    assert "# TYPE envoy_cluster_upstream_rq_time histogram" in text
    assert s.admin("/stats?format=json&filter=nothing")[1] == '{"stats":[]}'
    assert s.admin("/stats?filter=(")[0] == 400
    assert s.json("/memory")["total_physical_bytes"]
    s.json("/certs")
    for what in ("/logging", "/quitquitquit", "/healthcheck/fail", "/drain_listeners", "/reset_counters"):
        assert s.admin(what)[0] == 405, what
    assert s.admin("/nowhere")[0] == 404
    assert "upstream: debug" in s.admin("/logging?upstream=debug", "POST")[1]
    assert s.admin("/logging?nobody=debug", "POST")[0] == 400
    assert s.admin("/ready", headers={"Host": "evil.example"})[0] == 403
    assert s.admin("/ready", headers={"Host": "localhost:1"})[0] == 200
    assert s.admin("/healthcheck/fail", "POST") == (200, "OK\n")
    status, body = s.admin("/ready")
    assert status == 503 and body.startswith("DRAINING\n") and s.json("/server_info")["state"] == "DRAINING", (status, body)
    assert s.admin("/healthcheck/ok", "POST") == (200, "OK\n") and s.admin("/ready") == (200, "LIVE\n")
    assert s.admin("/reset_counters", "POST")[0] == 200 and s.stat("cluster.c.upstream_rq_total") == 0
    assert s.admin("/quitquitquit", "POST")[0] == 200
    assert s.process.wait(10) == 0


def test_admin_on_a_unix_socket_is_for_its_owner_only():
    sock = path("admin.sock")
    s = Sidecar(static([], [], admin={"address": {"pipe": {"path": sock}}}))
    assert s.admin_address == sock and os.stat(sock).st_mode & 0o777 == 0o600
    assert s.admin("/ready", headers={"Host": "anything"})[0] == 200
    assert s.stop(signal.SIGINT) == 0 and not os.path.exists(sock)


def test_memory_and_core_are_closed_to_others():
    s = Sidecar(static([], []))
    pid = s.process.pid
    if os.getuid() == 0:  # whom nothing is closed to: the kernel calls it root's, as of every process that forbids dumps
        assert os.stat("/proc/%d/mem" % pid).st_uid == 0
    else:
        try:
            open("/proc/%d/mem" % pid, "rb").close()
            assert False, "its memory is open to its own user"
        except PermissionError:
            pass
    limits = open("/proc/%d/limits" % pid).read()
    assert re.search(r"Max core file size\s+0\s+0", limits), limits
    s.stop()


def test_term_lets_open_requests_finish():
    b = Backend()
    s = Sidecar(static([listener("l", hcm([route("/", "c")]))], [cluster("c", b.port)]))
    port, answers = s.port("l"), []
    b.gate.clear()
    t = threading.Thread(target=lambda: answers.append(s_get(port)))

    def s_get(p):
        c = http.client.HTTPConnection("127.0.0.1", p, timeout=20)
        c.request("GET", "/slow")
        return c.getresponse().status

    t.start()
    wait_for("the request is at the backend", lambda: b.requests)
    s.process.send_signal(signal.SIGTERM)
    wait_for("draining", lambda: "DRAINING" in s.admin("/ready")[1])
    b.gate.set()
    t.join()
    assert answers == [200], answers
    assert s.process.wait(20) == 0


def test_keys_are_redacted_and_certificates_shown():
    certs = Certs()
    server, client = (certs.leaf(name, "URI:%s,DNS:%s.test" % (spiffe(name), name), "/CN=" + name) for name in ("server", "client"))
    b = Backend("inner")
    inner = Sidecar(static([listener("l", hcm([route("/", "c")]), transport=tls(server, certs.ca, server=True, require_client_certificate=True))],
                           [cluster("c", b.port)]))
    mine = tls(client, certs.ca, sni="server.test")
    mine["typed_config"]["common_tls_context"]["tls_certificates"][0]["private_key"] = {"inline_string": read(client[1])}
    outer = Sidecar(static([listener("l", hcm([route("/", "c")]))], [cluster("c", inner.port("l"), tls=mine)]))
    assert outer.get("/")[:2] == (200, "inner:")
    dump = outer.admin("/config_dump")[1]
    assert "[redacted]" in dump and "PRIVATE KEY" not in dump
    shown = outer.json("/certs")["certificates"]
    assert any(c["cert_chain"][0]["subject_alt_names"][0].get("uri") == spiffe("client") for c in shown), shown
    bad = json.loads(read(outer.config))
    bad["static_resources"]["clusters"][0]["transport_socket"]["typed_config"]["common_tls_context"]["tls_certificates"][0]["private_key"] = {
        "filename": server[1]}
    r = run(SIDECAR, "--mode", "validate", "-c", write("badkey.json", bad))
    assert r.returncode == 1 and 'cluster "c"' in r.stderr and "private_key" in r.stderr, r
    outer.stop(), inner.stop()


def test_secrets_in_files_are_followed():
    certs = Certs("filesds")
    leaves = {name: certs.leaf(name, "DNS:%s.test" % name, "/CN=" + name) for name in ("server", "client")}
    sds = path("sds.yaml")

    def put(name):
        cert, key = leaves[name]
        secret = any_("transport_sockets.tls.v3.Secret", name="own", tls_certificate={
            "certificate_chain": {"inline_string": read(cert)}, "private_key": {"inline_string": read(key)}})
        os.rename(write("sds.new", {"resources": [secret]}), sds)

    put("server")
    b = Backend()
    s = Sidecar(static([listener("l", hcm([route("/", "c")]), transport=sds_tls("own", {"path_config_source": {"path": sds}}))], [cluster("c", b.port)]))
    wait_for("the listener has its certificate", lambda: s.port("l"))
    trust = ssl.create_default_context(cafile=certs.ca)
    trust.check_hostname = False

    def shown():
        with socket.create_connection(("127.0.0.1", s.port("l")), 10) as raw, trust.wrap_socket(raw) as t:
            return dict(t.getpeercert()["subjectAltName"])["DNS"]

    for _ in range(200):
        assert shown() == "server.test"
    # Clients that leave right after the handshake are gone here as well.
    wait_for("no connection lingers", lambda: s.stat("listener.127.0.0.1_0.downstream_cx_active") == 0, 5)
    put("client")
    wait_for("the new certificate is shown", lambda: shown() == "client.test")
    write("sds.yaml", "resources: [broken")
    wait_for("the log says so", lambda: "sds.yaml" in s.log())
    assert shown() == "client.test"
    s.stop()


def test_tcp_is_relayed():
    srv = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            c, _ = srv.accept()
            c.sendall(b"hello ")
            c.sendall(c.recv(100))
            c.close()

    threading.Thread(target=serve, daemon=True).start()
    s = Sidecar(static([listener("l", tcp_proxy("c"))], [cluster("c", srv.getsockname()[1])]))
    with socket.create_connection(("127.0.0.1", s.port("l")), 10) as c:
        assert c.recv(6) == b"hello "
        c.sendall(b"world")
        assert c.recv(10) == b"world" and c.recv(10) == b""
    s.stop()


def test_an_address_in_use_is_an_error_at_start():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        r = run(SIDECAR, "-c", write("taken.json", static([listener("busy", hcm([route("/", "c")]), port=taken.getsockname()[1])], [cluster("c", 1)])))
        assert r.returncode == 1 and "busy" in r.stderr and "in use" in r.stderr.lower(), r


def test_strict_dns_resolves_localhost():
    b = Backend("dns")
    c = cluster("c", b.port, type="STRICT_DNS")
    c["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["address"] = "localhost"
    c["dns_lookup_family"] = "V4_ONLY"
    s = Sidecar(static([listener("l", hcm([route("/", "c")]))], [c]))
    assert s.get("/")[:2] == (200, "dns:")
    s.stop()


if __name__ == "__main__":
    main()
