"""An application that speaks gRPC in Python: server or client of weft.test.Echo (echo.proto), as grpc_peer.cc says."""
import json, sys, threading, time
from concurrent import futures

import grpc

DETAILS = b"\x08\x05\x12\x04gone"


def encode(body):
    n, size = len(body), b""
    while n > 127:
        size, n = size + bytes([n & 127 | 128]), n >> 7
    return b"\x0a" + size + bytes([n]) + body if body else b""


def decode(message):
    at = 1
    while at < len(message) and message[at] & 128:
        at += 1
    return message[at + 1:]


def answer(body):
    return b"x" * int(body[4:]) if body.startswith(b"big ") else body


class Service:
    def begin(self, context, body=b""):
        context.set_compression(grpc.Compression.Gzip)
        trailing = [(k, v) for k, v in context.invocation_metadata() if k == "x-told"]
        if body == b"fail":
            trailing.append(("grpc-status-details-bin", DETAILS))
            context.set_code(grpc.StatusCode.NOT_FOUND)
            context.set_details("gone: \u00e9%")
        context.set_trailing_metadata(trailing)
        if body == b"wait":
            done = threading.Event()
            if not context.add_callback(done.set):
                done.set()
            print("cancelled" if done.wait(10) else "never cancelled", flush=True)
            context.set_code(grpc.StatusCode.CANCELLED)

    def unary(self, body, context):
        self.begin(context, body)
        return answer(body)

    def down(self, body, context):
        self.begin(context, body)
        if body != b"wait":
            for i in range(5):
                yield b"%d %s" % (i, answer(body))

    def up(self, bodies, context):
        everything = b""
        for body in bodies:
            if body == b"fail":
                self.begin(context, body)
                return b""
            everything += body + b";"
        self.begin(context)
        return everything

    def both(self, bodies, context):
        self.begin(context)
        for body in bodies:
            if body in (b"fail", b"wait"):
                return self.begin(context, body)
            yield answer(body)


def serve(port):
    s = Service()
    coded = {"request_deserializer": decode, "response_serializer": encode}
    handlers = {"Unary": grpc.unary_unary_rpc_method_handler(s.unary, **coded), "Down": grpc.unary_stream_rpc_method_handler(s.down, **coded),
                "Up": grpc.stream_unary_rpc_method_handler(s.up, **coded), "Both": grpc.stream_stream_rpc_method_handler(s.both, **coded)}
    server = grpc.server(futures.ThreadPoolExecutor(16))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("weft.test.Echo", handlers)])
    server.add_insecure_port("127.0.0.1:" + port)
    server.start()
    server.wait_for_termination()


def outcome(call, bodies, error=None):
    code = call.code()
    trailing = dict(call.trailing_metadata() or ())
    short = lambda b: b.decode() if len(b) <= 100 else "%s...%d" % (b[:4].decode(), len(b))
    return {"code": code.value[0], "message": call.details() if code.value[0] == 5 else "", "bodies": [short(b) for b in bodies],
            "details": trailing.get("grpc-status-details-bin") == DETAILS, "told": trailing.get("x-told", "")}


def call(port):
    channel = grpc.insecure_channel("127.0.0.1:" + port, compression=grpc.Compression.Gzip)
    coded = {"request_serializer": encode, "response_deserializer": decode}
    at = "/weft.test.Echo/"
    unary, down = channel.unary_unary(at + "Unary", **coded), channel.unary_stream(at + "Down", **coded)
    up, both = channel.stream_unary(at + "Up", **coded), channel.stream_stream(at + "Both", **coded)
    told = (("x-told", "yes"),)
    results = {}

    def gather(call):
        got = []
        try:
            for body in call:
                got.append(body)
        except grpc.RpcError:
            pass
        return outcome(call, got)

    def single(method, argument, **kw):
        try:
            body, call = method.with_call(argument, metadata=told, **kw)
        except grpc.RpcError as e:
            return outcome(e, [b""])
        return outcome(call, [body])

    for body in (b"echo hello", b"big 300000", b"fail", b"wait"):
        seconds = 0.3 if body == b"wait" else 20
        results["unary " + body.decode()] = single(unary, body, timeout=seconds)
        results["down " + body.decode()] = gather(down(body, metadata=told, timeout=seconds))
        results["both " + body.decode()] = gather(both(iter([body] * 5), metadata=told, timeout=seconds))
        if body != b"wait":
            results["up " + body.decode()] = single(up, iter([body] * 5), timeout=seconds)
    gate, closed = threading.Event(), threading.Event()

    def requests():
        yield b"echo hello"
        gate.wait(20)
        yield b"wait"
        closed.wait(20)

    stream = both(requests(), metadata=told, timeout=20)
    first = next(stream)
    gate.set()
    time.sleep(0.2)  # the server is in its wait
    stream.cancel()
    results["cancelled"] = outcome(stream, [first])
    closed.set()
    print(json.dumps(results, ensure_ascii=False))


if __name__ == "__main__":
    (serve if sys.argv[1] == "server" else call)(sys.argv[2])
