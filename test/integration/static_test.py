"""A static Envoy file through the real process: serving, admin, access log, TLS, draining."""
import http.client, json, os, re, signal, socket, ssl, subprocess, threading

from harness import *


def static(listeners, clusters, **kw):
    return {"static_resources": {"listeners": listeners, "clusters": clusters}, **kw}


def test_validate_says_ok_or_names_the_place():
    path = os.path.join(TMP, "good.yaml")
    with open(path, "w") as f:
        json.dump(static([listener("l", hcm([route("c")]))], [cluster("c", 1)]), f)
    r = check("--mode", "validate", "-c", path)
    assert (r.returncode, r.stdout) == (0, "configuration '%s' OK\n" % path), r
    bad = os.path.join(TMP, "bad.yaml")
    with open(bad, "w") as f:
        f.write("static_resources:\n  clusters:\n  - name: c\n    lb_polcy: RANDOM\n")
    r = check("--mode", "validate", "-c", bad)
    assert r.returncode == 1 and bad in r.stderr and "static_resources.clusters[0]" in r.stderr and "lb_polcy" in r.stderr, r
    r = check("-c", os.path.join(TMP, "none.yaml"))
    assert r.returncode == 1 and "none.yaml" in r.stderr, r
    r = check()
    assert r.returncode == 1 and "bootstrap" in r.stderr, r
    r = check("-c", path, "-l", "loud")
    assert r.returncode == 1 and "--log-level" in r.stderr, r


def test_http_is_proxied_and_logged():
    b = Backend("b1")
    log = os.path.join(TMP, "access.txt")
    s = Sidecar(static([listener("l", hcm([route("dead", "/dead"), route("c")], access_log=log))], [cluster("c", b.port), cluster("dead", 1)]))
    status, body, headers = s.get("/x?y=1", method="POST", body="hello")
    assert (status, body) == (200, "b1:hello"), (status, body)
    assert headers["server"] == "envoy" and "x-envoy-upstream-service-time" in headers, headers
    assert b.requests[0][:2] == ("POST", "/x?y=1") and "x-request-id" in {k.lower() for k in b.requests[0][2]}
    assert s.get("/status/404")[0] == 404
    status, body, _ = s.get("/dead")
    assert status == 503 and "upstream connect error" in body, (status, body)
    lines = until("the access log is written", lambda: (lambda t: len(t) == 3 and t)(open(log).read().splitlines()))
    post, dead = (next(l for l in lines if what in l) for what in ("POST", "/dead"))  # two workers: in whatever order
    assert re.match(r'\[\d{4}-\d\d-\d\dT[\d:.]+Z\] "POST /x\?y=1 HTTP/1.1" 200 - 5 8 \d+ \d+ "-" "-" "[0-9a-f-]{36}" "127.0.0.1:\d+" "127.0.0.1:%d"$' % b.port, post), post
    assert ' 503 URX,UF ' in dead, dead  # Envoy's order of flags: by their value
    assert s.stat("cluster.c.upstream_rq_2xx") == 1 and s.stat("cluster.c.upstream_rq_4xx") == 1, s.admin("/stats")[1]
    assert s.stop() == 0


def test_admin_answers_like_envoys():
    b = Backend()
    s = Sidecar(static([listener("l", hcm([route("c")]))], [cluster("c", b.port)]))
    s.get("/")
    info = s.json("/server_info")
    assert info.get("state", "LIVE") == "LIVE" and info["node"]["id"] == "test-node" and info["command_line_options"]["concurrency"] == 2, info
    dump = s.json("/config_dump")["configs"]
    kinds = [c["@type"].rsplit(".", 1)[1] for c in dump]
    assert kinds[:2] == ["BootstrapConfigDump", "ClustersConfigDump"] and "ListenersConfigDump" in kinds, kinds
    assert dump[1]["static_clusters"][0]["cluster"]["name"] == "c", dump[1]
    assert s.json("/config_dump?resource=static_listeners")["configs"][0]["listener"]["name"] == "l"
    assert s.admin("/config_dump?resource=nonsense")[0] == 404
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
    for path in ("/logging", "/quitquitquit", "/healthcheck/fail", "/drain_listeners", "/reset_counters"):
        assert s.admin(path)[0] == 405, path
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
    path = os.path.join(TMP, "admin.sock")
    boot = static([], [], admin={"address": {"pipe": {"path": path}}})
    s = Sidecar(boot)
    assert s.admin_address == path and os.stat(path).st_mode & 0o777 == 0o600
    assert s.admin("/ready", headers={"Host": "anything"})[0] == 200
    assert s.stop(signal.SIGINT) == 0 and not os.path.exists(path)


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
    s = Sidecar(static([listener("l", hcm([route("c")]))], [cluster("c", b.port)]))
    port, answers = s.port("l"), []
    b.gate.clear()
    t = threading.Thread(target=lambda: answers.append(s_get(port)))

    def s_get(p):
        c = http.client.HTTPConnection("127.0.0.1", p, timeout=20)
        c.request("GET", "/slow")
        return c.getresponse().status

    t.start()
    until("the request is at the backend", lambda: b.requests)
    s.process.send_signal(signal.SIGTERM)
    until("draining", lambda: "DRAINING" in s.admin("/ready")[1])
    b.gate.set()
    t.join()
    assert answers == [200], answers
    assert s.process.wait(20) == 0


def tls_context(kind, folder, name, **kw):
    common = {"tls_certificates": [{"certificate_chain": {"filename": folder + "/%s.pem" % name}, "private_key": {"filename": folder + "/%s.key" % name}}],
              "validation_context": {"trusted_ca": {"filename": folder + "/ca.pem"}}}
    return {"name": "tls", "typed_config": any_("extensions.transport_sockets.tls.v3." + kind, common_tls_context=common, **kw)}


def test_mutual_tls_between_two_sidecars_and_redacted_keys():
    folder = make_ca(os.path.join(TMP, "pki"))
    b = Backend("inner")
    inner = Sidecar(static([listener("l", hcm([route("c")]), tls=tls_context("DownstreamTlsContext", folder, "server", require_client_certificate=True))],
                           [cluster("c", b.port)]))
    port = inner.port("l")
    key = open(folder + "/client.key").read()
    socket_ = tls_context("UpstreamTlsContext", folder, "client", sni="server.test")
    socket_["typed_config"]["common_tls_context"]["tls_certificates"][0]["private_key"] = {"inline_string": key}
    outer = Sidecar(static([listener("l", hcm([route("c")]))], [cluster("c", port, transport_socket=socket_)]))
    assert outer.get("/")[:2] == (200, "inner:")
    dump = outer.admin("/config_dump")[1]
    assert "[redacted]" in dump and "PRIVATE KEY" not in dump
    certs = outer.json("/certs")["certificates"]
    assert any(c["cert_chain"][0]["subject_alt_names"][0].get("uri") == "spiffe://test/ns/default/sa/client" for c in certs), certs
    # Without a certificate, and in plaintext: refused.
    bare = ssl.create_default_context(cafile=folder + "/ca.pem")
    bare.check_hostname = False
    try:
        with socket.create_connection(("127.0.0.1", port), 10) as raw, bare.wrap_socket(raw) as t:
            t.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert t.recv(100) == b""
    except (ssl.SSLError, ConnectionError):
        pass
    with socket.create_connection(("127.0.0.1", port), 10) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            assert b"HTTP" not in raw.recv(100)
        except ConnectionError:
            pass
    bad = json.loads(open(outer.config).read())
    bad["static_resources"]["clusters"][0]["transport_socket"]["typed_config"]["common_tls_context"]["tls_certificates"][0]["private_key"] = {
        "filename": folder + "/server.key"}
    with open(os.path.join(TMP, "badkey.json"), "w") as f:
        json.dump(bad, f)
    r = check("--mode", "validate", "-c", os.path.join(TMP, "badkey.json"))
    assert r.returncode == 1 and 'cluster "c"' in r.stderr and "private_key" in r.stderr, r
    outer.stop(), inner.stop()


def test_secrets_in_files_are_followed():
    folder = make_ca(os.path.join(TMP, "filesds"))
    path = os.path.join(folder, "sds.yaml")

    def write(name):
        cert = {"@type": V3 + "extensions.transport_sockets.tls.v3.Secret", "name": "own", "tls_certificate": {
            "certificate_chain": {"inline_string": open(folder + "/%s.pem" % name).read()},
            "private_key": {"inline_string": open(folder + "/%s.key" % name).read()}}}
        with open(path + ".new", "w") as f:
            json.dump({"resources": [cert]}, f)
        os.rename(path + ".new", path)

    write("server")
    tls = {"name": "tls", "typed_config": any_("extensions.transport_sockets.tls.v3.DownstreamTlsContext", common_tls_context={
        "tls_certificate_sds_secret_configs": [{"name": "own", "sds_config": {"path_config_source": {"path": path}}}]})}
    b = Backend()
    s = Sidecar(static([listener("l", hcm([route("c")]), tls=tls)], [cluster("c", b.port)]))
    until("the listener has its certificate", lambda: s.port("l"))
    trust = ssl.create_default_context(cafile=folder + "/ca.pem")
    trust.check_hostname = False

    def shown():
        with socket.create_connection(("127.0.0.1", s.port("l")), 10) as raw, trust.wrap_socket(raw) as t:
            return dict(t.getpeercert()["subjectAltName"])["DNS"]

    for _ in range(200):
        assert shown() == "server.test"
    # Clients that leave right after the handshake are gone here as well.
    until("no connection lingers", lambda: s.stat("listener.127.0.0.1_0.downstream_cx_active") == 0, 5)
    write("client")
    until("the new certificate is shown", lambda: shown() == "client.test")
    with open(path, "w") as f:
        f.write("resources: [broken")
    until("the log says so", lambda: "sds.yaml" in open(s.log).read())
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
    tcp = {"name": "tcp", "typed_config": any_("extensions.filters.network.tcp_proxy.v3.TcpProxy", stat_prefix="t", cluster="c")}
    s = Sidecar(static([listener("l", tcp)], [cluster("c", srv.getsockname()[1])]))
    with socket.create_connection(("127.0.0.1", s.port("l")), 10) as c:
        assert c.recv(6) == b"hello "
        c.sendall(b"world")
        assert c.recv(10) == b"world" and c.recv(10) == b""
    s.stop()


def test_an_address_in_use_is_an_error_at_start():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        path = os.path.join(TMP, "taken.json")
        with open(path, "w") as f:
            json.dump(static([listener("busy", hcm([route("c")]), port=taken.getsockname()[1])], [cluster("c", 1)]), f)
        r = check("-c", path)
        assert r.returncode == 1 and "busy" in r.stderr and "in use" in r.stderr.lower(), r


def test_strict_dns_resolves_localhost():
    b = Backend("dns")
    c = cluster("c", b.port, type="STRICT_DNS")
    c["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["address"] = "localhost"
    c["dns_lookup_family"] = "V4_ONLY"
    s = Sidecar(static([listener("l", hcm([route("c")]))], [c]))
    assert s.get("/")[:2] == (200, "dns:")
    s.stop()


main(globals())
