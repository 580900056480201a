"""The log server of the tests (test/support/fake_als.cc) and configuration that logs to it."""
import json, subprocess, threading

from envoy_config import *
from loopback import *

__all__ = ["LogServer", "als_log", "otlp_log"]


class LogServer:
    def __init__(self, *flags, port=0):
        self.process = start(binary("//test/support:fake_als"), "--port", str(port), *flags, env=NOT_JUDGED, stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True)
        self.port = json.loads(self.process.stdout.readline())["port"]
        self.said = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.said.append(json.loads(line))

    def say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def streams(self, name):
        """Numbers of the streams that said that they are of this log."""
        return [s["stream"] for s in list(self.said) if s.get("identifier", {}).get("log_name") == name]

    def entries(self, name, kind="http"):
        """What came for an ALS log, in order."""
        of = self.streams(name)
        return [s[kind] for s in list(self.said) if s.get("stream") in of and kind in s]

    def messages(self, name):
        """How many entries each message of the log had."""
        counts = {}
        for s in list(self.said):
            if s.get("stream") in self.streams(name) and "identifier" not in s:
                counts[s["stream"], s["message"]] = counts.get((s["stream"], s["message"]), 0) + 1
        return list(counts.values())

    def records(self):
        """OTLP: (resource attributes, log record) of each, in order."""
        return [({a["key"]: a["value"] for a in s["resource"].get("attributes", ())}, s["log"]) for s in list(self.said) if "export" in s]

    def closed(self):
        return [s["closed"] for s in list(self.said) if "closed" in s]

    def metadata(self):
        return [s["metadata"] for s in list(self.said) if "metadata" in s]

    def stop(self):
        stop(self.process)


def _service(cluster, metadata):
    return {"envoy_grpc": {"cluster_name": cluster}, "initial_metadata": [{"key": k, "value": v} for k, v in metadata.items()]}


def als_log(name, cluster="logs", kind="Http", metadata={}, headers={}, **common):
    """headers: the additional_*_to_log fields."""
    common = {"log_name": name, "transport_api_version": "V3", "buffer_flush_interval": "0.05s", "grpc_service": _service(cluster, metadata), **common}
    return named("als", "access_loggers.grpc.v3.%sGrpcAccessLogConfig" % kind, common_config=common, **headers)


def otlp_log(name, cluster="logs", metadata={}, **kw):
    return named("otlp", "access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig", log_name=name, buffer_flush_interval="0.05s",
                 grpc_service=_service(cluster, metadata), **kw)
