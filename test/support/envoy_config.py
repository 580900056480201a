"""Envoy-shaped configuration as Python values."""
T = "type.googleapis.com/"
V3 = T + "envoy.extensions."
ADS = {"ads": {}, "resource_api_version": "V3"}


def any_(t, **kw):
    return {"@type": t if t.startswith(T) else V3 + t, **kw}


def named(name, kind, **config):
    """An extension: a filter, a log, a transport socket."""
    return {"name": name, "typed_config": any_(kind, **config)}


def addr(port, host="127.0.0.1", **kw):
    return {"socket_address": {"address": host, "port_value": port, **kw}}


def static(listeners, clusters, **kw):
    return {"static_resources": {"listeners": listeners, "clusters": clusters}, **kw}


# ---- clusters
def endpoints(name, *ports):
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": addr(p)}} for p in ports]}]}


def http_options(**explicit):
    kind = "upstreams.http.v3.HttpProtocolOptions"
    return {"envoy.extensions." + kind: any_(kind, explicit_http_config=explicit)}


def cluster(name, *ports, h2=False, tls=None, **kw):
    """h2: True, or its options."""
    c = {"name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": endpoints(name, *ports), **kw}
    if h2:
        c["typed_extension_protocol_options"] = http_options(http2_protocol_options={} if h2 is True else h2)
    if tls:
        c["transport_socket"] = tls
    return c


def tls(cert, ca=None, server=False, alpn=None, sans=(), minimum=None, **kw):
    """cert: (certificate, key), files. sans: URIs that the peer's must be among, or whole string matchers. Without alpn a server
    offers both versions of HTTP and a client none."""
    c = {"alpn_protocols": list(alpn if alpn is not None else ("h2", "http/1.1") if server else ())}
    if minimum:
        c["tls_params"] = {"tls_minimum_protocol_version": minimum}
    if cert:
        c["tls_certificates"] = [{"certificate_chain": {"filename": cert[0]}, "private_key": {"filename": cert[1]}}]
    if ca:
        c["validation_context"] = {"trusted_ca": {"filename": ca}}
        if sans:
            c["validation_context"]["match_typed_subject_alt_names"] = [
                {"san_type": "URI", "matcher": s if isinstance(s, dict) else {"exact": s}} for s in sans]
    return named("tls", "transport_sockets.tls.v3." + ("DownstreamTlsContext" if server else "UpstreamTlsContext"), common_tls_context=c, **kw)


def sds_tls(secret, source):
    """A listener's TLS whose certificate comes from elsewhere."""
    return named("tls", "transport_sockets.tls.v3.DownstreamTlsContext",
                 common_tls_context={"tls_certificate_sds_secret_configs": [{"name": secret, "sds_config": source}]})


# ---- listeners
def route(prefix, to, **action):
    return {"match": {"prefix": prefix}, "route": {"cluster": to, **action}}


def file_log(path, **kw):
    return [named("f", "access_loggers.file.v3.FileAccessLog", path=path, **kw)]


def hcm(routes=None, rds=None, filters=(), **kw):
    c = {"stat_prefix": "in", "http_filters": [*filters, named("router", "filters.http.router.v3.Router")], **kw}
    if rds:
        c["rds"] = {"route_config_name": rds, "config_source": ADS}
    else:
        c["route_config"] = {"name": "r", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]}
    return named("hcm", "filters.network.http_connection_manager.v3.HttpConnectionManager", **c)


def tcp_proxy(to, **kw):
    return named("tcp", "filters.network.tcp_proxy.v3.TcpProxy", stat_prefix="t", cluster=to, **kw)


def listener(name, network_filter, port=0, transport=None):
    chain = {"filters": [network_filter]}
    if transport:
        chain["transport_socket"] = transport
    return {"name": name, "address": addr(port), "filter_chains": [chain]}


def http_listener(port, routes, transport=None, filters=(), **kw):
    return listener("l%d" % port, hcm(routes, filters=filters, **kw), port, transport)


def tcp_listener(port, to, transport=None, **kw):
    return listener("l%d" % port, tcp_proxy(to, **kw), port, transport)
