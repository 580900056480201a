"""Filters of access logs beside the real Envoy: one configuration with hundreds of loggers, each behind another filter or CEL
expression, the same requests through both, and the same loggers must have written for each."""
import re

from cases import *
from envoy_config import *
from loopback import *
import envoy_test
import wire
from envoy_test import ENVOY, REQUESTS

# Expressions, one a line; whether each is true, false or an error is Envoy's to say.
ATTRIBUTES = r"""
request.method == "GET"
request.method in ["POST", "HEAD"]
request.path == "/ok?q=hello&r=1"
request.path.startsWith("/status/")
request.url_path == "/ok"
request.url_path.endsWith("/ok") && request.query != ""
request.query == "q=hello&r=1"
request.query == ""
request.host == "a"
request.host != "other"
request.scheme == "http"
request.scheme == "https"
request.protocol == "HTTP/1.1"
request.protocol == "HTTP/2"
request.useragent == "test"
has(request.useragent)
has(request.referer)
request.referer == ""
has(request.id)
size(request.id) == 36
request.headers["x-request-id"] == request.id
request.headers["x-a"] == "abcdef"
request.headers["X-A"] == "abcdef"
request.headers["x-many"] == "1,2"
request.headers["x-none"] == "a"
request.headers["x-none"] != "a"
!(request.headers["x-none"] == "a")
request.headers["bad name"] == "a"
request.headers[""] == "a"
request.headers[1] == "a"
request.headers[request.method] == "a"
request.headers[":path"] == request.path
request.headers["host"] == request.host
request.headers[":authority"].contains("a")
request.headers["content-length"] == "5"
int(request.headers["content-length"]) > 4
request.headers["content-type"].matches("^application/grpc")
request.headers["x-a"].matches("b.d")
request.headers["x-a"].matches("^b.d$")
request.headers["x-a"].contains("bcd") && request.headers["x-a"].startsWith("a")
"x-a" in request.headers
"x-none" in request.headers
!("x-none" in request.headers) || request.path == "/ok"
1 in request.headers
has(request.headers.te)
has(request.headers.nothing)
request.headers.te == "trailers"
size(request.headers) > 3
size(request.headers) > 300
request.headers == request.headers
request.headers == {}
request.headers == response.headers
request.headers_bytes > 0
request.time > timestamp("2023-01-01T00:00:00Z")
request.time < timestamp("2023-01-01T00:00:00Z")
request.time.getFullYear() > 2000
request.time.getHours("Europe/Berlin") >= 0
request.duration >= duration("0s")
request.duration > duration("10m")
request.duration.getSeconds() == 0
request.time + request.duration > timestamp("2023-01-01T00:00:00Z")
request.size == 0
request.size == 5
request.size >= 3
request.total_size > 10
request.nope == 1
has(request.nope)
request["path"] == request.path
request[1] == 1
request.path[0] == "/"
request == source
request == {}
size(request) == 0
type(request) == map
type(request.headers) == map
"path" in request
"nope" in request
response.code == 200
response.code >= 400
response.code >= 400 && response.code < 500
response.code in [200, 201, 418]
response.code == 200u
response.code == 200.0
response.code / 100 == 5
response.code % 100 == 3
response.code > 499 || request.path == "/ok"
has(response.code)
response.code_details == "via_upstream"
response.code_details == "direct_response"
response.code_details == "route_not_found"
response.code_details == "cluster_not_found"
response.code_details == "no_healthy_upstream"
response.code_details.startsWith("rbac")
response.code_details.contains("timeout")
response.code_details == "fault_filter_abort"
has(response.code_details)
response.flags == 0
response.flags == 2
response.flags == 256
response.flags == 16777216
response.flags > 0
response.flags == 4
response.flags == 32
response.flags == 512
response.flags == 1024
response.flags == 2048
response.flags == 64
response.flags % 2 == 0
has(response.grpc_status)
response.grpc_status == 5
response.grpc_status == 2
response.grpc_status == 14
response.grpc_status in [12, 13, 16]
response.size == 5
response.size > 0
response.total_size > 5
response.headers["x-color"] == "red"
response.headers["x-many"] == "1,2"
response.headers[":status"] == "200"
response.headers["content-length"] == "5"
response.headers["location"].endsWith("/new")
"server" in response.headers
"x-color" in response.headers
size(response.headers) > 2
response.headers_bytes > 10
response.trailers["x-sum"] == "5"
has(response.trailers.nope)
"x-sum" in response.trailers
size(response.trailers) == 0
size(response.trailers) == 1
response.backend_latency >= duration("0s")
response.backend_latency < duration("1h")
has(response.backend_latency)
source.address.startsWith("127.0.0.1:")
source.port > 1024
source.port == 0
destination.address.startsWith("127.0.0.1:")
destination.port > 0
has(source.address)
source.nope == 1
size(source) == 0
connection.mtls
connection.requested_server_name == ""
connection.id >= 0u
has(connection.tls_version)
connection.tls_version == "TLSv1.3"
connection.uri_san_peer_certificate == "spiffe://t/ns/default/sa/both"
connection.uri_san_peer_certificate.startsWith("spiffe://")
has(connection.subject_peer_certificate)
connection.subject_peer_certificate.contains("both")
has(connection.dns_san_peer_certificate)
has(connection.termination_details)
has(connection.transport_failure_reason)
connection.nope == 1
upstream.address.startsWith("127.0.0.1:")
has(upstream.address)
upstream.port > 0
has(upstream.port)
has(upstream.local_address)
upstream.local_address.startsWith("127.0.0.1:")
upstream.transport_failure_reason == ""
upstream.transport_failure_reason.startsWith("delayed connect error")
has(upstream.transport_failure_reason)
upstream.request_attempt_count == 1
upstream.request_attempt_count == 2u
upstream.request_attempt_count > 1
upstream.request_attempt_count == 0
has(upstream.tls_version)
metadata == metadata
metadata.filter_metadata == {}
size(metadata.filter_metadata) == 0
metadata.filter_metadata["x"] == 1
has(metadata.filter_metadata.x)
has(metadata.filter_metadata)
has(metadata.nope)
"x" in metadata.filter_metadata
metadata["filter_metadata"] == {}
size(metadata) == 0
metadata == {}
type(metadata) == map
metadata.filter_metadata["envoy.filters.http.rbac"].enforced_engine_result == "denied"
metadata.filter_metadata["envoy.filters.http.rbac"]["enforced_engine_result"] == "allowed"
metadata.filter_metadata["envoy.filters.http.rbac"].enforced_effective_policy_id.startsWith("no-")
has(metadata.filter_metadata["envoy.filters.http.rbac"].enforced_effective_policy_id)
"envoy.filters.http.rbac" in metadata.filter_metadata
"enforced_engine_result" in metadata.filter_metadata["envoy.filters.http.rbac"]
size(metadata.filter_metadata["envoy.filters.http.rbac"]) == 2
metadata.filter_metadata["envoy.filters.http.rbac"].nope == 1
filter_state["x"] == 1
"x" in filter_state
size(filter_state) == 0
xds.cluster_name == "back"
xds.cluster_name == "dead"
has(xds.cluster_name)
xds.route_name == "the-route"
xds.route_name == ""
has(xds.route_name)
xds.virtual_host_name == "all"
has(xds.virtual_host_name)
xds.filter_chain_name == ""
xds.listener_direction == 0
xds == {}
foo
foo.bar == 1
foo || true
foo && response.code == 200
has(foo.bar)
.request.method == "GET"
request.nope == 1 || response.code == 200
request.nope == 1 && response.code == 200
response.code == 200 ? request.path == "/ok?q=hello&r=1" : request.method == "GET"
response.code ? true : false
request.method
response.code
request.path + "x" == "/okx"
response.code + 1u == 201
response.code + 1 == 201
-response.code == -200
!response.code
request.path < "/p"
request.path < 5
request.path != 5
[request.method, response.code] == ["GET", 200]
{"m": request.method}.m == "GET"
{request.method: response.code}["GET"] == 200
request.path.matches(request.path)
request.path.matches(request.headers["x-none"])
re.extract(request.path, "/([a-z]+)", "\\1") == "ok"
re.capture(request.path, "/([a-z]+)") == "empty"
int(request.path) == 1
double(response.code) > 1.5
uint(response.code) == 200u
bool(request.method)
bytes(request.method) == b"GET"
type(response.code) == int
type(request.method) == string
type(request.time) == type(timestamp(0))
size(request.method) == 3
request.method.size() == 3
dyn(request.method) == "GET"
""".strip().split("\n")

# Without attributes: what the language itself says.
CONSTANTS = r"""
1 == 1.0
1 < 2.5
1u < 2
9223372036854775807 + 1 == 0
9223372036854775807 == 9223372036854775807.0
-9223372036854775808 < 0
-9223372036854775808 / -1 == 1
-9223372036854775808 % -1 == 0
-(-9223372036854775808) == 1
0x1Fu == 31u
5u - 6u == 0u
1 + 1u == 2
1 / 0 == 1
5u % 0u == 0u
1.0 / 0.0 > 5.0
1.5 % 1.0 == 0.5
0.0/0.0 == 0.0/0.0
0.0/0.0 < 1.0
false < true
"a" == 1
"a" < 1
null == null
null < null
[1,2] == [1.0,2u]
{1:2} == {1u:2.0}
1 in {1u:2}
1.5 in {1:2}
1 in 1
"a" in "abc"
{"a":1}.a == 1
{"a":1}["b"] == 1
has({"a":1}.b)
has("a".b)
[1,2][0.0] == 1
[1,2][0.5] == 1
[1,2][-1] == 1
[1,2][2] == 1
{1:1}[1.0] == 1
{1:1, 1:2}[1] == 1
{1:1,1:2} == {} || true
{null: 1} == {} || true
null in {1:1}
{1u:1,1:2}[1] == 2
size({1:1,1u:2}) == 2
upstream in request
[1] in request.headers
{1.5: 2}[1.5] == 2
{null: 1} == 1
size("é") == 1
size(b"é") == 2
size(1) == 1
contains("abc","b")
"abc".matches("b")
int("x") == 42
int(" 1") == 1
int("+1") == 1
int("0x1f") == 31
int(-1.9) == -1
int(1e19) == 1
int(true) == 1
uint("-1") == 1u
uint(-0.5) == 0u
double("0x10") == 16.0
double("") == 0.0
double("NaN") == 1.0
bool("TRUE")
bool("t")
bool("x")
bool(1)
bytes("a") == "a"
type(type(1)) == type
type(null) == null_type
[string, int] == [type("a"), type(1)]
timestamp == timestamp
duration("1.5s") == duration("1500ms")
duration("1h1m1s1ms1us1ns") > duration("1h")
duration("1d") == duration("24h")
duration("1.s") == duration("1s")
duration(" 1s") == duration("1s")
duration("315576000001s") == duration("1s")
duration("-1.5s").getSeconds() == -1
duration("-1.5s").getMilliseconds() == -500
duration("3661s").getMinutes() == 61
duration("1h") * 2 == duration("2h")
duration(1) == duration("1s")
timestamp("2023-01-01T00:00:00+01:00") == timestamp("2022-12-31T23:00:00Z")
timestamp("2023-02-30T00:00:00Z") == timestamp("2023-03-02T00:00:00Z")
timestamp("2023-01-01T00:00:60Z") == timestamp("2023-01-01T00:01:00Z")
timestamp(" 2023-1-1t00:00:00z ") == timestamp("2023-01-01T00:00:00Z")
timestamp("2023-01-01 00:00:00Z") < timestamp(0)
timestamp("10000-01-01T00:00:00Z") == timestamp("2023-01-01T00:00:00Z")
timestamp(9223372036854775807) + duration("1h") > timestamp(0)
timestamp(1u) == timestamp(1)
timestamp(0) == 0
timestamp(0) < 1
timestamp(7) - timestamp(2) == duration("5s")
timestamp("2023-05-06T07:08:09Z").getDayOfYear() == 125
timestamp("2023-05-06T07:08:09Z").getDayOfWeek() == 6
timestamp("2023-05-06T07:08:09Z").getHours("America/New_York") == 3
timestamp("2023-12-06T07:08:09Z").getHours("America/New_York") == 2
timestamp("2023-05-06T07:08:09Z").getHours("-02:30") == 4
timestamp("2023-05-06T07:08:09Z").getHours("02:00") == 9
timestamp(0).getHours("Nowhere/X") == 0
timestamp(0).getHours("+05:99") == 6
timestamp(0).getFullYear("-01:00") == 1969
timestamp(-1).getSeconds() == 59
true || (1/0 == 1)
(1/0 == 1) || true
(1/0 == 1) && false
(1/0 == 1) || false
1 || true
false || 1
1 ? true : false
true ? 1 : 2
!1
--5 == 5
--"a" == "a"
1<2<3
1 in [1] in [true]
2 + 3 * 4 == 14
-7 % 3 == -1
10 - 2 - 3 == 5
true || false && false
true ? false : true ? true : false
'''a''' == "a"
r"\d" == "\\d"
b"\xff" == b'\377'
"\xff" == "ÿ"
"\U0001F600" == "😀"
br"a\n" == b"a\\n"
.5 == 0.5
1.e3 == 1.0
01 == 1
1e400 > 1.0
a.`b-c` == 1
[,] == []
{1:2,} == {1:2}
1in[1]
"a" + "b" == "ab"
[1]+[2] == [1,2]
re.captureN("abc", "a(?P<x>.)(.)") == {"x":"b","2":"c"}
re.extract("abc", "(", "a") == "c"
true // a comment
""".strip().split("\n")

# With every option of cel_config.
WITH_OPTIONS = r"""
string(response.code) == "200"
string(1.0/3.0) == "0.3333333333333333"
string(1000000.5) == "1.0000005e+06"
string(1e20) == "1e+20"
string(0.00001) == "1e-05"
string(-1.0/0.0) == "-inf"
string(b"\xff") == "a"
string(null) == "null"
string(true) == "true"
string(timestamp("2023-01-01T00:00:00.5Z")) == "2023-01-01T00:00:00.500Z"
string(duration("-1ms")) == "-0.001s"
request.method + request.path == "GET/ok?q=hello&r=1"
b"a" + b"b" == b"ab"
[1]+[2] == [1,2]
request.method.lowerAscii() == "get"
"ÄBC".lowerAscii() == "Äbc"
request.path.upperAscii().startsWith("/OK")
request.path.replace("/", "") == "ok"
"abc".replace("","-",2) == "-a-bc"
request.query.split("&").size() == 2
request.path.split("/")[1] == "status"
"a,b,c".split(",", 2) == ["a","b,c"]
"".split("") == [""]
["a","b"].join(",") == "a,b"
["a",1].join(",") == "a,b"
"abc".charAt(4) == ""
"abcb".lastIndexOf("b", 2) == 1
request.path.indexOf("?") > 0
"abc".substring(2,1) == ""
" a\t".trim() == "a"
request.method.reverse() == "TEG"
strings.quote("a\nb\"") == "\"a\\nb\\\"\""
""".strip().split("\n")

# Refused when they are read, by both.
REFUSED = [
    "", "1 +", "a b", "[1 2]", "{1}", '{"a"}', "(1", "1)", "a..b", "a.", ".", "?", "a ? b", "$a", "@a", "a && && b", "a & b", "a | b", "a = b", "\\", '"abc', '"a\nb"', "é == 1",
    r'r"a\"b" == "x"', r'b"\u00e9" == b"x"', r'"\401" == "A"', r'"\q" == "q"', r'"\ud800" == "x"', r'"\U00110000" == "x"', 'rb"a" == b"a"', "1. == 1.0", "0x == 1", "0X1 == 1",
    "9223372036854775808 == 1", "--9223372036854775808 == 1", "18446744073709551616u == 1u", "0xFFFFFFFFFFFFFFFF == 1", "as == 1", "foo.in == 1", "foo.true == 1", "import", "in", "type(in)",
    "`a` == 1", "/* c */ true", "Foo{a: 1} == 1", "request.?path", "[?1]", 'request[?"path"]', 'has(request.headers["x-a"])', "has(a)", "has(a.b, c)", "x.has(a.b)", "[1].all(x, x > 0)",
    "[1].exists(x, x > 0)", "[1].exists_one(x, x > 0)", "[1].map(x, x) == [1]", "[1].filter(x, x > 0) == [1]", "[1].all(x) == 1", "[1].all(1, x > 0)", "all(1)", "foo(1)", '"a".foo() == 1', "a.b.c.d(1)",
    "size() == 1", 'size("a", "b") == 1', '"a".size(1) == 1', 'string(1) == "1"', '"a".lowerAscii() == "a"', '"abc".replace("a","b") == "bbc"', '"abc".split("b") == []', '"abc".matches("(")',
    '"a".matches("[a-z]{1,50}")', 'regex.extract("abc", "b(.)") == "c"', "math.greatest(1,2) == 2", "cel.bind(x, 1, x == 1)", "optional.of(1)", "(" * 33 + "true" + ")" * 33, "+".join(["1"] * 33),
    "[" * 32 + "1" + "]" * 32, "!(" * 32 + "true" + ")" * 32, "true?true:" * 32 + "true", "a" + ".b" * 32, "'" + "a" * 100_000 + "' == 'a'",
]
# Long and deep, but not too much.
ACCEPTED = ["(" * 32 + "true" + ")" * 32, "+".join(["1"] * 31) + " == 31", "&&".join(["true"] * 1000), "!" * 1000 + "true", "[" * 30 + "1" + "]" * 30 + " == 1", "true?true:" * 31 + "true", "a" + ".b" * 31]


def expression(text, **options):
    config = any_("access_loggers.filters.cel.v3.ExpressionFilter", expression=text, **({"cel_config": options} if options else {}))
    return {"extension_filter": {"name": "cel", "typed_config": config}}


def compare(kind, op, value):
    return {kind + "_filter": {"comparison": {"op": op, "value": {"default_value": value, "runtime_key": "none"}}}}


def both(*filters):
    return {"and_filter": {"filters": list(filters)}}


def either(*filters):
    return {"or_filter": {"filters": list(filters)}}


def header(**kw):
    return {"header_filter": {"header": kw}}


def sample(numerator, denominator="HUNDRED", **kw):
    return {"runtime_filter": {"runtime_key": "none", "percent_sampled": {"numerator": numerator, "denominator": denominator}, **kw}}


def flags(*names):
    return {"response_flag_filter": {"flags": list(names)}}


def metadata(found=None, of="x", keys=("k",), **value):
    kept = {} if found is None else {"match_if_key_not_found": found}
    return {"metadata_filter": {"matcher": {"filter": of, "path": [{"key": k} for k in keys], "value": value or {"bool_match": True}}, **kept}}


FILTERS = [compare("status_code", op, v) for op in ("EQ", "GE", "LE", "NE") for v in (0, 200, 404, 500, 503)]
FILTERS += [compare("duration", "GE", 0), compare("duration", "GE", 600000), compare("duration", "LE", 600000), compare("duration", "NE", 600000), compare("duration", "EQ", 600000)]
FILTERS += [flags()] + [flags(f) for f in "UH UF NR RL DI FI UT NC UC URX UPE UAEX DC LH RFCF".split()] + [flags("UH", "NR")]
FILTERS += [{"grpc_status_filter": {"statuses": s, **kw}} for kw in ({}, {"exclude": True}) for s in ([], ["OK"], ["UNKNOWN"], ["NOT_FOUND", "UNAVAILABLE"], ["UNIMPLEMENTED"], ["PERMISSION_DENIED"])]
FILTERS += [{"log_type_filter": {"types": t, **kw}} for kw in ({}, {"exclude": True}) for t in ([], ["NotSet"], ["DownstreamEnd"], ["TcpConnectionEnd", "DownstreamStart"])]
FILTERS += [header(name="x-a"), header(name="x-a", string_match={"exact": "abcdef"}), header(name="x-none", present_match=False), header(name="x-a", string_match={"prefix": "z"}, invert_match=True),
            header(name=":path", string_match={"prefix": "/status"}), header(name=":method", string_match={"exact": "GET"}), header(name="x-many", string_match={"exact": "1,2"}), header(name="x-many", string_match={"exact": "2"}),
            header(name="x-many", string_match={"exact": "2"}, invert_match=True), header(name="x-many", range_match={"start": 2, "end": 3}),
            header(name="content-length", range_match={"start": 1, "end": 6}), header(name="x-none", string_match={"exact": ""}, treat_missing_header_as_empty=True)]
FILTERS += [sample(0), sample(100), sample(10), sample(50), sample(90), sample(5000, "TEN_THOUSAND"), sample(500000, "MILLION"), sample(100, use_independent_randomness=True), sample(0, use_independent_randomness=True),
            {"runtime_filter": {"runtime_key": "none"}}]
FILTERS += [{"not_health_check_filter": {}}, {"traceable_filter": {}}, metadata(), metadata(True), metadata(False), metadata(False, present_match=True), {"metadata_filter": {}}]
RBAC = dict(of="envoy.filters.http.rbac", keys=["enforced_engine_result"])
FILTERS += [metadata(found, **RBAC, **value) for found in (None, False) for value in ({"string_match": {"exact": "denied"}}, {"string_match": {"prefix": "allow"}}, {"present_match": True}, {"present_match": False}, {"bool_match": True}, {
    "or_match": {"value_matchers": [{"null_match": {}}, {"string_match": {"exact": "denied"}}]}})]
FILTERS += [metadata(found, of=RBAC["of"], keys=["enforced_engine_result", "deeper"], present_match=True) for found in (True, False)]
FILTERS += [both(compare("status_code", "GE", 400), compare("status_code", "LE", 499)), either(compare("status_code", "EQ", 200), flags("NR")), either(flags("UH"), flags("NC"), header(name="te")),
            both(header(name="x-a"), either(compare("status_code", "GE", 500), expression("request.method == 'HEAD'"))), either(both(flags(), header(name="x-a")), both(sample(0), header(name="x-a"))),
            both(expression("response.code == 200"), expression("request.nope == 1 || true"))]

UUID = "%08x-1b2c-4d5e-8f90-0123456789ab"
MORE = [("request id %d" % n, "/ok", "x-request-id: %s\r\n" % (UUID % n)) for n in (0, 9, 49, 50, 89, 99, 4999, 499999, 0xffffffff)] + [
    ("request id that is none", "/ok", "x-request-id: 0000\r\n"),
    ("request id with letters", "/ok", "x-request-id: zzzzzzzz-1b2c-4d5e-8f90-0123456789ab\r\n"),
    ("forced trace", "/ok", "x-envoy-force-trace: 1\r\n"),
    ("forced by the id", "/ok", "x-request-id: 00000001-1b2c-ad5e-8f90-0123456789ab\r\n"),
    ("sampled by the id", "/ok", "x-request-id: 00000001-1b2c-9d5e-8f90-0123456789ab\r\n"),
    ("forced by the client", "/ok", "x-envoy-force-trace: 1\r\nx-client-trace-id: 5\r\n"),
    ("referer", "/ok?a=b", "referer: r\r\ncontent-type: application/grpc\r\n"),
]
# We say less or more than Envoy of these on purpose (envoy_test.py), so their filters differ.
LEFT_OUT = ("malformed request", "HTTP/1.0", "connect without route", "client leaves")
# (request, filter) -> why we differ; "*" stands for all of them.
DIFFERENT = {("tcp", e): "we say who ended a connection" for e in (
    "response.flags == 0", "response.flags > 0", "response.flags % 2 == 0", "has(connection.termination_details)", str(flags()), str(flags("DC")))}
DIFFERENT["mutual TLS", 'connection.requested_server_name == ""'] = "known without a TLS inspector too"
# Where the request brings no number of its own, chance decides.
BY_CHANCE = [str(sample(*s)) for s in ((10,), (50,), (90,), (5000, "TEN_THOUSAND"), (500000, "MILLION"))]


def different(request, what):
    what = what.removeprefix("not ")
    if what in BY_CHANCE and not re.match(r"request id \d|.*by the id", request):
        return True
    return (request, what) in DIFFERENT or ("*", what) in DIFFERENT



class LogFilters(envoy_test.AccessLog):
    """Borrows the pair of proxies, not the tests."""

    def filters(self):
        out = [(e, expression(e)) for e in ATTRIBUTES + CONSTANTS + ACCEPTED]
        out += [("not " + e, expression("!(%s\n)" % e)) for e in ATTRIBUTES + CONSTANTS]
        everything = dict(enable_string_conversion=True, enable_string_concat=True, enable_string_functions=True)
        out += [("with " + e, expression(e, **everything)) for e in WITH_OPTIONS] + [("with not " + e, expression("!(%s\n)" % e, **everything)) for e in WITH_OPTIONS]
        return out + [(str(f), f) for f in FILTERS]

    def formats(self):
        filters = self.filters()

        def logs(log):
            line = lambda text: {"text_format_source": {"inline_string": text + "\n"}}
            out = file_log(log, log_format=line("x"))
            for i, (_, f) in enumerate(filters):
                out += [dict(file_log(log + ".filters", log_format=line(str(i)))[0], filter=f)]
            return out + file_log(log + ".filters", log_format=line("end"))

        return logs

    def taken(self, proxy, requests):
        """For each request so far, the loggers that took it."""
        path = proxy.log + ".filters"
        wait_for("%s to log %d requests" % (proxy.name, requests), lambda: open(path).read().count("end\n") >= requests, 20)
        return [set(part.split("\n")) - {""} for part in open(path).read().split("end\n")[:requests]]

    def same(self, names, envoy, ours):
        filters = self.filters()
        wrong = []
        wanted, got = self.taken(envoy, len(names)), self.taken(ours, len(names))
        for name, a, b in zip(names, wanted, got):
            for i in sorted(a ^ b, key=int):
                what = filters[int(i)][0]
                if not different(name, what):
                    wrong.append("%-24s %-70s %s" % (name, what, "only Envoy logs" if i in a else "only we log"))
        self.assertFalse(wrong, "\n" + "\n".join(wrong[:200]))
        return wanted

    def test_http(self):
        configuration = envoy_test.configuration

        def traced(*args):
            conf = configuration(*args)
            for l in conf["static_resources"]["listeners"][:1]:
                l["filter_chains"][0]["filters"][0]["typed_config"]["tracing"] = {"random_sampling": {"value": 0}}
            return conf

        envoy_test.configuration = traced
        self.addCleanup(setattr, envoy_test, "configuration", configuration)
        envoy, ours = self.pair(self.formats())
        names = []
        for name, request, lines in REQUESTS + MORE:
            if name in LEFT_OUT:
                continue
            envoy.ask(request, lines), ours.ask(request, lines)
            names.append(name)
        leaf = ["--cert", self.leaf[0], "--key", self.leaf[1], "-k"]
        for name, scheme, options in (("HTTP/2", "http", ["--http2-prior-knowledge"]), ("HTTP/2 with a body", "http", ["--http2-prior-knowledge", "-d", "hello"]), ("mutual TLS", "https", leaf)):
            for p in (envoy, ours):
                have = len(p.lines())
                at = "localhost:%d" % (p.secure if scheme == "https" else p.front)
                run("curl", "-sS", "-m", "10", "-H", "Host: a", "-A", "test", *options, "--resolve", at + ":127.0.0.1", "%s://%s/ok?q=1" % (scheme, at))
                p.logged(have + 1)
            names.append(name)
        wanted = self.same(names, envoy, ours)
        # Most filters tell some requests from others: the comparison is one of more than nothing.
        telling = set().union(*wanted) - set.intersection(*wanted)
        self.assertGreater(len(telling), 150)

    def test_tcp(self):
        envoy, ours = self.pair(self.formats())
        for p in (envoy, ours):
            p.log += ".tcp"
            with wire.connect(p.tcp) as s:
                s.sendall(b"GET /ok HTTP/1.1\r\nHost: a\r\n\r\n")
                s.recv(10)
            p.logged(1)
        self.same(["tcp"], envoy, ours)

    def test_refused(self):
        def refused(argv, text):
            name = "refused-%d.json" % free_port()
            conf = static([http_listener(free_port(), [route("/", "c")], access_log=[dict(file_log("/dev/null")[0], filter=expression(text))])], [cluster("c", 1)])
            return run(*argv, "-c", write(name, conf), "--mode", "validate")

        for text in REFUSED:
            self.assertNotEqual(refused([ENVOY, "--disable-hot-restart", "-l", "error"], text).returncode, 0, "Envoy takes " + text[:100])
            ours = refused([SIDECAR], text)
            self.assertNotEqual(ours.returncode, 0, "we take " + text[:100])
            self.assertRegex(ours.stdout + ours.stderr, r"filter\.extension_filter\.typed_config\.expression: (expression \d+:\d+: |the expression has more than)", text[:100])

    # Not ours.
    test_text = test_json = test_stats = test_unsupported_operators_are_refused_by_name = None


if __name__ == "__main__":
    main()
