"""Discovery against a foreign server (grpc++): delta and state of the world, warming, NACK, reconnect, make before break."""
import http.client, json, socket, ssl, subprocess, threading

from cases import *
from envoy_config import *
from loopback import *
import wire


class Ads:
    def __init__(self, *flags):
        self.process = start(binary("//test/support:fake_ads"), *flags, env=NOT_JUDGED, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = json.loads(self.process.stdout.readline())["port"]
        self.requests = []
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            q = json.loads(line)
            kind, body = next(iter(q.items()))
            body["kind"], body["type"] = kind, body.get("typeUrl", "").rsplit(".", 1)[-1]
            self.requests.append(body)

    def say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def set(self, kind, name, resource):
        self.say("set %s %s %s" % (kind, name, json.dumps(resource)))

    def push(self, version):
        self.say("push " + version)

    def seen(self, **want):
        return [r for r in self.requests if all(r.get(k) == v for k, v in want.items())]

    def kill(self):
        self.process.kill()
        self.process.wait()


def bootstrap(port, api="DELTA_GRPC", transport_socket=None):
    c = cluster("xds", port, h2=True, tls=transport_socket)
    return {"static_resources": {"clusters": [c]},
            "dynamic_resources": {"ads_config": {"api_type": api, "transport_api_version": "V3", "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]},
                                  "cds_config": ADS, "lds_config": ADS}}


def eds_cluster(name):
    return {"name": name, "type": "EDS", "connect_timeout": "1s",
            "eds_cluster_config": {"eds_config": ADS}}


def routes(name, target):
    return {"name": name, "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [route("/", target)]}]}


def fill(ads, backend):
    ads.set("CDS", "cart", eds_cluster("cart"))
    ads.set("EDS", "cart", endpoints("cart", backend.port))
    ads.set("LDS", "l", listener("l", hcm(rds="r")))
    ads.set("RDS", "r", routes("r", "cart"))


def whole_life(api, kind):
    a, b = Backend("a"), Backend("b")
    ads = Ads()
    fill(ads, a)
    ads.push("1")
    s = Sidecar(bootstrap(ads.port, api))
    assert s.get("/")[:2] == (200, "a:")
    # Order of first requests, node once.
    first = [r for r in ads.requests if not r.get("responseNonce")]
    types = [r["type"] for r in first]
    assert types.index("Cluster") < types.index("ClusterLoadAssignment") and types.index("Listener") < types.index("RouteConfiguration"), types
    assert ads.requests[0]["node"]["id"] == "test-node" and not any(r.get("node") for r in ads.requests[1:]), ads.requests
    assert wait_for("ACK of LDS", lambda: [r for r in ads.seen(kind=kind, type="Listener") if r.get("responseNonce") and not r.get("errorDetail")])
    # Endpoints move; the connection of the listener stays what it is.
    ads.set("EDS", "cart", endpoints("cart", b.port))
    ads.push("2")
    wait_for("requests go to b", lambda: s.get("/")[1] == "b:")
    # A bad cluster: NACK names it and its field, the rest of the push is applied, the last good one serves.
    ads.set("CDS", "bad", {"name": "bad", "type": "EDS", "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": "-1s",
                           "eds_cluster_config": {"eds_config": ADS}})
    ads.set("CDS", "good", cluster("good", a.port))
    ads.push("3")
    nack = wait_for("NACK", lambda: [r for r in ads.seen(kind=kind, type="Cluster") if r.get("errorDetail")])[0]
    assert '"bad"' in nack["errorDetail"]["message"] and "connect_timeout" in nack["errorDetail"]["message"], nack
    wait_for("good is in force", lambda: "good::" in s.admin("/clusters")[1])
    assert "bad::" not in s.admin("/clusters")[1] and s.get("/")[1] == "b:"
    assert s.stat("cluster_manager.cds.update_rejected") == 1
    assert "connect_timeout" in s.json("/weft/status")["ads"]["types"]["CDS"]["error"]
    # Corrected.
    ads.say("del CDS bad")
    ads.set("RDS", "r", routes("r", "good"))
    ads.push("4")
    wait_for("the route leads to good", lambda: s.get("/")[1] == "a:")
    wait_for("no error left", lambda: s.json("/weft/status")["ads"]["types"]["CDS"]["error"] == "")
    # The server dies: traffic goes on; it comes back on the same port: versions are told, nothing breaks.
    port = ads.port
    ads.kill()
    wait_for("loss is seen", lambda: s.stat("control_plane.connected_state") == 0)
    assert s.get("/")[1] == "a:"
    ads = Ads("--port", str(port))
    ads.set("CDS", "cart", eds_cluster("cart"))
    ads.set("CDS", "good", cluster("good", b.port))
    ads.set("EDS", "cart", endpoints("cart", a.port))
    ads.set("LDS", "l", listener("l", hcm(rds="r")))
    ads.set("RDS", "r", routes("r", "good"))
    ads.push("5")
    wait_for("the new server's configuration", lambda: s.get("/")[1] == "b:", 40)
    first = wait_for("first requests", lambda: ads.seen(type="Cluster"))[0]
    assert first["node"]["id"] == "test-node"
    if kind == "delta":
        assert set(first["initialResourceVersions"]) == {"cart", "good"}, first
    # The listener goes.
    ads.say("del LDS l")
    ads.push("6")
    wait_for("the listener is gone", lambda: s.port("l") == 0)
    assert s.stop() == 0
    ads.kill(), a.close(), b.close()


def test_delta():
    whole_life("DELTA_GRPC", "delta")


def test_state_of_the_world():
    whole_life("GRPC", "sotw")


def test_warming_keeps_the_old_one_serving():
    a, b = Backend("a"), Backend("b")
    ads = Ads()
    fill(ads, a)
    ads.push("1")
    s = Sidecar(bootstrap(ads.port))
    assert s.get("/")[1] == "a:"
    # The cluster's new version waits for endpoints under another name: the old one serves until they come.
    c = eds_cluster("cart")
    c["eds_cluster_config"]["service_name"] = "cart-v2"
    ads.set("CDS", "cart", c)
    # fake_ads answers unknown names at once; a listener with a certificate by SDS shows waiting without an answer.
    ads.set("LDS", "secure", listener("secure", hcm(rds="r"), transport=sds_tls("cert", ADS)))
    ads.set("EDS", "cart-v2", endpoints("cart-v2", b.port))
    ads.push("2")
    wait_for("cart-v2 serves", lambda: s.get("/")[1] == "b:")
    wait_for("the secret is asked for", lambda: ads.seen(type="Secret"))
    dump = s.json("/config_dump?resource=dynamic_listeners&name_regex=secure")["configs"][0]
    assert "warming_state" in dump and "active_state" not in dump, dump
    assert 'secret "cert"' in s.admin("/init_dump")[1]
    assert s.port("secure") == 0
    certs = Certs("sds")
    cert, key = certs.leaf("server", "DNS:server.test", "/CN=server")
    ads.set("SDS", "cert", {"name": "cert", "tls_certificate": {"certificate_chain": {"inline_string": read(cert)}, "private_key": {"inline_string": read(key)}}})
    ads.push("3")
    wait_for("the listener came up", lambda: s.port("secure"))
    t = ssl.create_default_context(cafile=certs.ca)
    with socket.create_connection(("127.0.0.1", s.port("secure")), 10) as raw, t.wrap_socket(raw, server_hostname="server.test") as c:
        c.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"200 OK" in c.recv(1000)
    dump = s.admin("/config_dump")[1]
    assert "PRIVATE KEY" not in dump and '"cert"' in dump
    s.stop(), ads.kill()


def test_a_listener_that_cannot_bind_is_refused_and_the_others_serve():
    a = Backend("a")
    ads = Ads()
    fill(ads, a)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ads.set("LDS", "busy", listener("busy", hcm(rds="r"), port=taken.getsockname()[1]))
        ads.push("1")
        s = Sidecar(bootstrap(ads.port))
        nack = wait_for("NACK", lambda: [r for r in ads.seen(type="Listener") if r.get("errorDetail")])[0]
        assert '"busy"' in nack["errorDetail"]["message"] and "in use" in nack["errorDetail"]["message"], nack
        wait_for("l serves", lambda: s.get("/")[1] == "a:")
    s.stop(), ads.kill()


def test_mutual_tls_to_the_server():
    certs = Certs("ads")
    server, client = (certs.leaf(name, "URI:%s,DNS:%s.test" % (spiffe(name), name), "/CN=" + name) for name in ("server", "client"))
    a = Backend("a")
    ads = Ads("--tls", *server, certs.ca)
    fill(ads, a)
    ads.push("1")
    s = Sidecar(bootstrap(ads.port, transport_socket=tls(client, certs.ca, alpn=["h2"], sni="server.test")))
    assert s.get("/")[1] == "a:"
    s.stop(), ads.kill()


def test_a_thousand_clusters_in_one_push():
    ads = Ads()
    a = Backend("a")
    fill(ads, a)
    for i in range(1000):
        ads.set("CDS", "c%d" % i, eds_cluster("c%d" % i))
        ads.set("EDS", "c%d" % i, endpoints("c%d" % i, a.port))
    ads.push("1")
    s = Sidecar(bootstrap(ads.port))
    assert s.get("/")[1] == "a:"
    wait_for("all are in force", lambda: s.stat("cluster_manager.active_clusters") == 1002)
    s.stop(), ads.kill()


class Caller(threading.Thread):
    """Requests one after the other on one connection, until told to stop."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.done, self.count, self.failed = port, False, 0, []
        self.start()

    def run(self):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        while not self.done:
            try:
                c.request("POST" if self.count % 3 else "GET", "/x", body=b"y" * 100)
                r = c.getresponse()
                body = r.read()
                if r.status != 200:
                    self.failed.append((self.count, r.status, body))
            except (OSError, http.client.HTTPException) as e:
                self.failed.append((self.count, repr(e)))
                c.close()
            self.count += 1
        c.close()


def test_changes_under_load_fail_nothing():
    a, b = Backend("a"), Backend("b")
    ads = Ads()
    fill(ads, a)
    ads.set("CDS", "good", cluster("good", a.port))
    ads.set("LDS", "t", listener("t", tcp_proxy("good")))
    ads.push("0")
    s = Sidecar(bootstrap(ads.port))
    wait_for("both listen", lambda: s.port("l") and s.port("t"))
    callers = [Caller(s.port("l")) for _ in range(6)] + [Caller(s.port("t")) for _ in range(2)]
    acknowledged = lambda: len([r for r in ads.requests if r.get("responseNonce") and not r.get("errorDetail")])
    for i in range(1, 41):
        before, served = acknowledged(), [c.count for c in callers]
        kind = i % 5
        if kind == 0:
            ads.set("EDS", "cart", endpoints("cart", (a if i % 2 else b).port))
        elif kind == 1:
            ads.set("RDS", "r", routes("r", "good" if i % 2 else "cart"))
        elif kind == 2:
            ads.set("CDS", "cart", {**eds_cluster("cart"), "connect_timeout": "%ds" % (i + 1)})
            ads.set("EDS", "cart", endpoints("cart", a.port, b.port))
        elif kind == 3:
            ads.set("LDS", "l", listener("l", hcm(rds="r", server_name="v%d" % i)))
        else:
            ads.set("CDS", "more%d" % i, cluster("more%d" % i, b.port))
        ads.push(str(i))
        wait_for("the change is taken", lambda: acknowledged() > before)
        wait_for("everybody was served since", lambda: all(c.failed or c.count > n for c, n in zip(callers, served)))
    for c in callers:
        c.done = True
    for c in callers:
        c.join(30)
    assert not any(c.failed for c in callers), [c.failed[:3] for c in callers]
    assert not [r for r in ads.requests if r.get("errorDetail")]
    assert s.stop() == 0


def test_a_changed_listener_lets_go_of_http2():
    b, ads = Backend("b"), Ads()
    fill(ads, b)
    ads.push("1")
    s = Sidecar(bootstrap(ads.port))
    assert s.get("/")[0] == 200
    sock = wire.connect(s.port("l"))
    f = wire.Frames(sock)
    sock.sendall(wire.PREFACE + wire.frame(wire.SETTINGS, 0, 0) + wire.script("HEADERS 1 END :path=/first"))
    f.until(lambda said: "end 1" in said)
    sock.sendall(wire.script("HEADERS 3 :method=POST content-length=2"))
    ads.set("LDS", "l", listener("l", hcm(rds="r", server_name="other")))
    ads.push("2")
    f.until(lambda _: f.goaways)
    assert f.goaways == [2**31 - 1], f.goaways
    sock.sendall(wire.script("HEADERS 5 END :path=/on-its-way"))  # before the word could reach its sender
    f.until(lambda said: "end 5" in said and len(f.goaways) > 1)
    assert f.goaways == [2**31 - 1, 5] and "200 on 5" in f.said, (f.goaways, f.said)
    sock.sendall(wire.script("DATA 3 END ok"))  # what is under way ends in its own time, and the connection with it
    f.until(lambda _: f.eof)
    assert "200 on 3" in f.said and f.bodies[3] == b"b:ok" and f.said.count("goaway 0") == 2, (f.said, f.bodies)
    assert s.stop() == 0


if __name__ == "__main__":
    main()
