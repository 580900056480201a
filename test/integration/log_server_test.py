"""Access logs to servers (ALS, OTLP): what waits, what arrives, in which order, and what is counted."""
import json, subprocess, threading

from ads_test import Ads, bootstrap
from cases import *
from envoy_config import *
from log_server import *
from loopback import *

ALS = "access_logs.grpc_access_log."
OTLP = "access_logs.open_telemetry_access_log."


def sidecar(logs, backend, *clusters):
    # One worker: entries of different workers have no order.
    return Sidecar(static([listener("l", hcm([route("/", "back")], access_log=logs))], [cluster("back", backend.port), *clusters]), workers=1)


def paths(entries):
    return [e["request"]["path"] for e in entries]


def test_batches_order_and_streams():
    server, back = LogServer(), Backend()
    s = sidecar([als_log("one", metadata={"x-who": "me"}), als_log("two", buffer_size_bytes=0, buffer_flush_interval="3600s"),
                 als_log("big", buffer_size_bytes=1000, buffer_flush_interval="3600s")], back, cluster("logs", server.port, h2=True))
    for i in range(10):
        assert s.get("/%d" % i)[0] == 200
    wanted = ["/%d" % i for i in range(10)]
    wait_for("the first log", lambda: paths(server.entries("one")) == wanted)
    wait_for("the second log", lambda: paths(server.entries("two")) == wanted)
    assert len(server.streams("one")) == len(server.streams("two")) == 1 and server.streams("one") != server.streams("two"), server.said
    assert server.messages("two") == [1] * 10, "without a buffer each entry is a message"
    wait_for("batches by size", lambda: server.messages("big"))
    assert set(server.messages("big")) == {server.messages("big")[0]} and 1 < server.messages("big")[0] < 5, server.messages("big")
    assert [m.get("x-who") for m in server.metadata()].count("me") == 1, server.metadata()
    assert s.stat(ALS + "logs_written") == 30 and s.stat(ALS + "logs_dropped") == 0
    # What a long interval still holds leaves when the process does.
    assert s.stop() == 0
    wait_for("the rest", lambda: paths(server.entries("big")) == wanted)
    wait_for("the streams to be ended, not cut", lambda: len(server.closed()) == 3)


def test_server_comes_later():
    port, back = free_port(), Backend()
    s = sidecar([als_log("late"), otlp_log("late", body={"string_value": "%REQ(:PATH)%"})], back, cluster("logs", port, h2=True))
    for i in range(5):
        s.get("/%d" % i)
    wait_for("entries to wait", lambda: s.stat(ALS + "logs_written") == 5)
    assert s.stat(ALS + "grpc_entries_flushed") == 0 and s.stat(ALS + "logs_dropped") == 0
    server = LogServer(port=port)
    wanted = ["/%d" % i for i in range(5)]
    wait_for("what waited", lambda: paths(server.entries("late")) == wanted)
    wait_for("what waited", lambda: [r["body"]["string_value"] for _, r in server.records()] == wanted)
    wait_for("the counts", lambda: s.stat(ALS + "grpc_entries_flushed") == 5 and s.stat(OTLP + "logs_written") == 5)
    # Streams that the server ends are begun again, by name.
    server.say("drop")
    wait_for("the stream to end", server.closed)
    s.get("/again")
    wait_for("the next stream", lambda: paths(server.entries("late")) == wanted + ["/again"])
    assert len(server.streams("late")) == 2
    # A server that is replaced: what comes in between arrives at the next one.
    server.stop()
    s.get("/between")
    again = LogServer(port=port)
    wait_for("the next server", lambda: paths(again.entries("late")) == ["/between"])
    assert s.stop() == 0


def test_server_gone_for_long():
    back = Backend()
    # One cluster whose server is not there, one that does not exist.
    long = "x" * 30000
    log = dict(headers={"additional_request_headers_to_log": ["x-long"]})
    s = sidecar([als_log("gone", **log), als_log("nowhere", cluster="nobody", **log)], back, cluster("logs", free_port(), h2=True))
    for i in range(200):
        assert s.get("/%d" % i, headers={"x-long": long})[0] == 200
    wait_for("drops to be counted", lambda: s.stat(ALS + "logs_dropped") > 100)
    total = lambda: s.stat(ALS + "logs_dropped") + s.stat(ALS + "logs_written")
    wait_for("each entry to be counted once", lambda: total() == 400)
    assert s.stat(ALS + "logs_written") * 30000 < 10 << 20, "a few MiB wait for each"
    assert s.get("/still")[0] == 200
    assert s.stop() == 0, "and nobody waits for them at the end"


def test_configuration_goes_away():
    server, back, ads = LogServer(), Backend(), Ads()
    ads.set("CDS", "back", cluster("back", back.port))
    logged = lambda *logs: ads.set("LDS", "l", listener("l", hcm([route("/", "back")], access_log=list(logs))))
    logged(als_log("a", buffer_flush_interval="3600s"), als_log("b"))
    ads.push("1")
    s = Sidecar(bootstrap(ads.port), workers=1)
    wait_for("the listener", lambda: s.port("l"))
    s.get("/1")
    # The cluster of the logs comes after the logs.
    ads.set("CDS", "logs", cluster("logs", server.port, h2=True))
    ads.push("2")
    wait_for("b", lambda: paths(server.entries("b")) == ["/1"])
    assert not server.entries("a"), "its interval is long"
    logged(als_log("b"))
    ads.push("3")
    wait_for("a: flushed, then ended", lambda: (paths(server.entries("a")), server.closed()) == (["/1"], server.streams("a")))
    s.get("/2")
    wait_for("b stays on its stream", lambda: paths(server.entries("b")) == ["/1", "/2"])
    assert len(server.streams("b")) == 1
    # The cluster moves: so do its logs.
    other = LogServer()
    ads.set("CDS", "logs", cluster("logs", other.port, h2=True))
    ads.push("4")
    wait_for("the old server to be left", lambda: len(server.closed()) == 2)
    s.get("/3")
    wait_for("the other server", lambda: paths(other.entries("b")) == ["/3"])
    assert s.stop() == 0


def test_tls():
    certs, back = Certs(), Backend()
    leaf = certs.leaf("logs", "DNS:logs.example", "/CN=logs")
    server = LogServer("--tls", *leaf, certs.ca)
    s = sidecar([als_log("secret")], back, cluster("logs", server.port, h2=True, tls=tls(leaf, certs.ca, alpn=["h2"], sni="logs.example")))
    s.get("/1")
    wait_for("the entry", lambda: paths(server.entries("secret")) == ["/1"])
    assert s.stop() == 0


def test_otlp_answers():
    server, back = LogServer(), Backend()
    s = sidecar([otlp_log("o", buffer_size_bytes=0, stat_prefix="mine")], back, cluster("logs", server.port, h2=True))
    server.say("reject 2")
    s.get("/1")
    wait_for("it is exported again", lambda: len(server.records()) == 1)
    wait_for("one record", lambda: s.stat(OTLP + "mine.logs_written") == 1)
    assert s.stat(OTLP + "mine.logs_dropped") == 0
    server.say("partial 1")
    wait_for("the server to have heard", lambda: s.get("/2")[0] == 200 and s.stat(OTLP + "mine.logs_dropped") > 0)
    resource, record = server.records()[0]
    assert resource["log_name"] == {"string_value": "o"} and resource["node_name"] == {"string_value": "test-node"}, resource
    assert int(record["time_unix_nano"]) > 1e18, record
    assert s.stop() == 0


if __name__ == "__main__":
    main()
