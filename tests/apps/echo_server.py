"""A gRPC server of grpcio on loopback. It tells on standard output what became of calls that did not end well."""

import sys
import threading
from concurrent import futures

import grpc

BIG = [("grpc.max_receive_message_length", 16 << 20)]


def unary(request, context):
    told = dict(context.invocation_metadata())
    context.send_initial_metadata([("x-head", "1"), ("x-head-bin", b"\x00\xff")])
    context.set_trailing_metadata([("x-user", told.get("x-user", "")), ("x-data-bin", told.get("x-data-bin", b""))])
    return request


def collect(requests, _context):
    return b",".join(requests)


def count(request, context):
    context.set_trailing_metadata([("x-sum", "7")])
    for number in range(int(request)):
        yield str(number).encode()


def echo(requests, _context):
    yield from requests


def fail(request, context):
    context.set_trailing_metadata([("x-reason-bin", "schließlich".encode())])
    context.abort(grpc.StatusCode[request.decode()], "Straße 日本 nicht gefunden: 100 %")


def fail_late(_request, context):
    yield b"first"
    context.abort(grpc.StatusCode.DATA_LOSS, "am Ende doch ✗")


def sleep(_request, context):
    ended = threading.Event()
    if not context.add_callback(ended.set):
        ended.set()
    left = context.time_remaining()
    ended.wait(30)
    print(f"gone, deadline {'none' if left is None or left > 1e6 else 'known'}", flush=True)
    return b""


def silent(request, context):
    yield b"began"
    sleep(request, context)


METHODS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Collect": grpc.stream_unary_rpc_method_handler(collect),
    "Count": grpc.unary_stream_rpc_method_handler(count),
    "Echo": grpc.stream_stream_rpc_method_handler(echo),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "FailLate": grpc.unary_stream_rpc_method_handler(fail_late),
    "Sleep": grpc.unary_unary_rpc_method_handler(sleep),
    "Silent": grpc.unary_stream_rpc_method_handler(silent),
}


def main():
    server = grpc.server(futures.ThreadPoolExecutor(16), options=BIG)
    for service in ("echo.Echo", "admin.Admin"):
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, METHODS)])
    server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    server.start()
    print("serving", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
