"""Calls every method of echo_server.py and writes what came of each as a line of JSON.

Directly: `echo_client.py ADDRESS`. Through the proxy: `echo_client.py ADDRESS HOST CA`, with the session's cookie on
standard input, or an empty line for somebody without a session.
"""

import json
import queue
import sys

import grpc

PATIENCE = 20
BIG = [("grpc.max_receive_message_length", 16 << 20)]


def pairs(metadata):
    """Metadata that the application sent: its names begin with x-."""
    return sorted([key, value.hex() if isinstance(value, bytes) else value] for key, value in metadata or () if key[:2] == "x-")


def outcome(call, messages):
    """What a call came to. `messages` gives the messages of the answer."""
    heard, code = [], None
    try:
        for message in messages(call):
            heard.append(message.decode() if len(message) < 100 else len(message))
    except grpc.RpcError as error:
        code = error.code().name
    return {
        "messages": heard,
        "code": code or call.code().name,
        # What the client itself decided, its library words as it likes.
        "details": None if code in ("CANCELLED", "DEADLINE_EXCEEDED") else call.details(),
        "head": pairs(call.initial_metadata()),
        "trailers": pairs(call.trailing_metadata()),
    }


def one(call):
    yield call.result()


def conversation(channel, metadata):
    """Sends each message only once the one before has come back."""
    turns = iter(["one", "zwei", "さん", ""])
    heard = queue.Queue()
    heard.put(b"")

    def requests():
        for turn in turns:
            heard.get(timeout=PATIENCE)
            yield turn.encode()

    call = channel.stream_stream("/echo.Echo/Echo")(requests(), metadata=metadata, timeout=PATIENCE)

    def messages(call):
        for message in call:
            heard.put(message)
            yield message

    return outcome(call, messages)


def calls(channel, metadata):
    """Every kind of call, and every kind of end."""
    def unary(method, request, **extra):
        extra = {"metadata": metadata, "timeout": PATIENCE, **extra}
        return outcome(channel.unary_unary(method).future(request, **extra), one)

    def stream(method, request, **extra):
        extra = {"metadata": metadata, "timeout": PATIENCE, **extra}
        return outcome(channel.unary_stream(method)(request, **extra), iter)

    yield "unary", unary("/echo.Echo/Unary", b"hello", metadata=[*metadata, ("x-data-bin", b"\x00\x01\xfe\xff")])
    yield "unary, compressed", unary("/echo.Echo/Unary", b"z" * 100_000, compression=grpc.Compression.Gzip)
    yield "unary, 8 MiB", unary("/echo.Echo/Unary", b"x" * (8 << 20))
    yield "unary, empty", unary("/echo.Echo/Unary", b"")
    collect = channel.stream_unary("/echo.Echo/Collect").future(iter([b"a", b"b", b"c"]), metadata=metadata, timeout=PATIENCE)
    yield "client stream", outcome(collect, one)
    yield "server stream", stream("/echo.Echo/Count", b"500")
    yield "server stream of nothing", stream("/echo.Echo/Count", b"0")
    yield "both ways", conversation(channel, metadata)
    for code in ("NOT_FOUND", "UNAUTHENTICATED", "INTERNAL", "RESOURCE_EXHAUSTED"):
        yield f"error {code}", unary("/echo.Echo/Fail", code.encode())
    yield "error after a message", stream("/echo.Echo/FailLate", b"")
    yield "unknown method", unary("/echo.Echo/Nothing", b"")
    yield "deadline", unary("/echo.Echo/Sleep", b"", timeout=1)
    yield "deadline of a stream", stream("/echo.Echo/Silent", b"", timeout=1)
    call = channel.unary_stream("/echo.Echo/Silent")(b"", metadata=metadata)
    next(call)
    call.cancel()
    yield "cancelled", outcome(call, iter)


def main():
    target, *tls = sys.argv[1:]
    metadata = []
    if tls:
        host, authority = tls
        cookie = sys.stdin.readline().strip()
        metadata = [("cookie", cookie)] if cookie else []
        with open(authority, "rb") as file:
            credentials = grpc.ssl_channel_credentials(file.read())
        port = target.rsplit(":", 1)[1]
        options = [("grpc.ssl_target_name_override", host), ("grpc.default_authority", f"{host}:{port}"), *BIG]
        channel = grpc.secure_channel(target, credentials, options)
    else:
        channel = grpc.insecure_channel(target, BIG)
    with channel:
        if tls:
            for name, method in (("allowed", "/echo.Echo/Unary"), ("not allowed", "/admin.Admin/Unary")):
                call = channel.unary_unary(method).future(b"hi", metadata=metadata, timeout=PATIENCE)
                print(json.dumps({"name": name, **outcome(call, one)}), flush=True)
        if metadata or not tls:
            for name, result in calls(channel, metadata):
                print(json.dumps({"name": name, **result}), flush=True)


if __name__ == "__main__":
    main()
