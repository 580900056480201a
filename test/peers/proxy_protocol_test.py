"""The PROXY protocol between foreign programs: HAProxy in front says who the client is, nginx behind is told by us."""
import os

from cases import *
from envoy_config import *
from loopback import *
import wire

LISTEN = [named("proxy", "filters.listener.proxy_protocol.v3.ProxyProtocol")]


def told(version, inner=None):
    """A cluster's transport socket that begins with a PROXY header."""
    return named("proxy", "transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport", config={"version": version},
                 transport_socket=inner or named("raw", "transport_sockets.raw_buffer.v3.RawBuffer"))


def with_filters(l, filters=LISTEN):
    return {**l, "listener_filters": filters}


def haproxy(to, send, mode="tcp"):
    """A port whose connections go to `to` with a header."""
    need("haproxy")
    port = free_port()
    conf = write("haproxy-%d.cfg" % port, """
defaults
  mode %s
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen l
  bind 127.0.0.1:%d
  server s 127.0.0.1:%d %s
""" % (mode, port, to, send))
    wait_port(port, start("haproxy", "-f", conf, "-db"))
    return port


def nginx(certs):
    """(HTTP port, HTTPS port, TCP port), all with PROXY headers; answers with the addresses in them."""
    need("nginx")
    web, secure, tcp = free_port(), free_port(), free_port()
    cert, key = certs.leaf("nginx", "DNS:nginx")
    says = "$proxy_protocol_addr:$proxy_protocol_port > $proxy_protocol_server_addr:$proxy_protocol_server_port"
    conf = write("nginx.conf", """
daemon off; master_process off; error_log stderr; pid %s/nginx.pid; %s
events { worker_connections 200; }
http {
  access_log off; client_body_temp_path %s; proxy_temp_path %s; fastcgi_temp_path %s; uwsgi_temp_path %s; scgi_temp_path %s;
  server {
    listen 127.0.0.1:%d proxy_protocol; listen 127.0.0.1:%d ssl proxy_protocol; listen 127.0.0.1:%d proxy_protocol;
    ssl_certificate %s; ssl_certificate_key %s;
    location / { default_type text/plain; return 200 "%s for $http_x_forwarded_for"; }
  }
}
""" % (TMP, "user root;" if os.getuid() == 0 else "", TMP, TMP, TMP, TMP, TMP, web, secure, tcp, cert, key, says))
    process = start("nginx", "-p", TMP, "-c", conf)
    wait_port(web, process)
    return web, secure, tcp


def ask(port):
    """(what it said, our own end of the connection)"""
    with wire.connect(port, 20) as c:
        c.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        answer = wire.read_all(c)
        assert answer.startswith(b"HTTP/1.1 200"), answer
        return answer.partition(b"\r\n\r\n")[2].decode(), "%s:%d" % c.getsockname()


def test_haproxy_in_front_and_nginx_behind():
    certs = Certs()
    web, secure, tcp = nginx(certs)
    client = tls(None, certs.ca, sni="nginx")
    http = lambda name, to: with_filters(listener(name, hcm([route("/", to)], use_remote_address=True)))
    s = Sidecar(static(
        [http("h1", "web1"), http("h2", "web2"), http("hs", "secure"), with_filters(listener("t1", tcp_proxy("tcp1"))), with_filters(listener("t2", tcp_proxy("tcp2")))],
        [cluster("web1", web, transport_socket=told("V1")), cluster("web2", web, transport_socket=told("V2")), cluster("secure", secure, transport_socket=told("V2", client)),
         cluster("tcp1", tcp, transport_socket=told("V1")), cluster("tcp2", tcp, transport_socket=told("V2"))]))
    for send in ("send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options unique-id"):
        for name in ("h1", "h2", "hs", "t1", "t2"):
            entry = haproxy(s.port(name), send)
            said, me = ask(entry)
            # nginx sees the client, and where it had connected to, through both proxies.
            want = "%s > 127.0.0.1:%d for " % (me, entry)
            assert said == want + ("127.0.0.1" if name[0] == "h" else ""), (send, name, said, want)
    # Each of HAProxy's ports was also tried once, before it was used.
    assert (s.stat("proxy_proto.versions.v1.found"), s.stat("proxy_proto.versions.v2.found")) == (10, 20)
    assert s.stat("cluster.web1.upstream_cx_total") == 3, "a connection speaks for one client only"


def test_health_checks_of_the_balancer_itself():
    """HAProxy checks with LOCAL, and finds us healthy; its traffic is then let through."""
    app = Backend("hello")
    s = Sidecar(static([with_filters(listener("l", hcm([route("/", "app")])))], [cluster("app", app.port)]))
    entry = haproxy(s.port("l"), "send-proxy-v2 check inter 100 fall 1", mode="http")
    wait_for("checks", lambda: s.stat("proxy_proto.versions.v2.found") >= 2)
    with wire.connect(entry) as c:
        c.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        assert wire.read_all(c).startswith(b"HTTP/1.1 200")


def test_no_header_no_connection():
    app = Backend("hello")
    optional = [named("proxy", "filters.listener.proxy_protocol.v3.ProxyProtocol", allow_requests_without_proxy_protocol=True, stat_prefix="loose")]
    s = Sidecar(static([with_filters(listener("strict", hcm([route("/", "app")], access_log=file_log(path("refused"))))),
                        with_filters(listener("loose", hcm([route("/", "app")])), optional)], [cluster("app", app.port)]))
    with wire.connect(s.port("strict")) as c:
        c.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert wire.read_all(c) == b""
    assert s.stat("proxy_proto.not_found_disallowed") == 1
    assert s.get(listener="loose")[0] == 200
    assert s.stat("proxy_proto.loose.not_found_allowed") == 1


def test_who_may_come_is_decided_by_the_client_not_the_balancer():
    """Rules and filter chains see the client of the header; where it wanted to go finds the listener (use_original_dst)."""
    app = Backend("hello")
    cidr = lambda ip: {"address_prefix": ip, "prefix_len": 32}
    rules = lambda kind: {"action": "DENY", "policies": {"p": {"permissions": [{"any": True}], "principals": [{kind: cidr("10.0.0.66")}]}}}
    rbac = lambda **kw: named("rbac", "filters.http.rbac.v3.RBAC", rules=rules(**kw))
    guarded = hcm([route("/", "app")], filters=[rbac(kind="remote_ip")])
    front = {**with_filters(listener("front", guarded)), "use_original_dst": True}
    behind = {**listener("behind", hcm([route("/", "app")], filters=[rbac(kind="direct_remote_ip")])), "address": addr(8080, "192.0.2.1"), "bind_to_port": False}
    chains = with_filters({"name": "chains", "address": addr(0), "filter_chains": [
        {"filter_chain_match": {"source_prefix_ranges": [cidr("10.0.0.1")]}, "filters": [tcp_proxy("app")]},
        {"filter_chain_match": {"direct_source_prefix_ranges": [cidr("10.0.0.2")]}, "filters": [tcp_proxy("app")]}]})
    s = Sidecar(static([front, behind, chains], [cluster("app", app.port)]))

    def status(name, source, destination="10.9.9.9 1 80"):
        to, ports = destination.split(" ", 1)
        with wire.connect(s.port(name)) as c:
            c.sendall(b"PROXY TCP4 %s %s %s\r\nGET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n" % (source.encode(), to.encode(), ports.encode()))
            return wire.read_all(c)[9:12]

    assert (status("front", "10.0.0.1"), status("front", "10.0.0.66")) == (b"200", b"403")
    assert status("front", "10.0.0.66", "192.0.2.1 1 8080") == b"200", "of the socket's peer, the other listener's rules have nothing to say"
    assert s.stat("listener.behind.downstream_cx_total") + s.stat("listener.192.0.2.1_8080.downstream_cx_total") == 1
    assert (status("chains", "10.0.0.1"), status("chains", "10.0.0.2")) == (b"200", b"")


if __name__ == "__main__":
    main()
