"""Raw TLS connections to a proxy, as many as a memory row wants, and single large bodies."""

import contextlib
import socket
import ssl

from .processes import Failed

PATIENCE_SECONDS = 60
# RFC 6455 section 1.3; the application answers no other key.
WEBSOCKET_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
# A masked text frame of four bytes (section 5.2).
FRAME = bytes([0x81, 0x84, 1, 2, 3, 4]) + bytes(byte ^ mask for byte, mask in zip(b"ping", (1, 2, 3, 4)))
PIECE = bytes(1 << 20)


def context():
    """TLS as the proxies speak it; nobody checks the certificate that this run has made."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    made.set_alpn_protocols(["http/1.1"])
    return made


def connect(port, tls):
    """A connection after its handshake."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return tls.wrap_socket(plain, server_hostname="localhost")


def head(connection):
    """The head of an answer, and what came of the body with it."""
    text = b""
    while b"\r\n\r\n" not in text:
        part = connection.recv(65536)
        if not part:
            raise Failed(f"the connection ended after {text[:200]!r}")
        text += part
    head, _, rest = text.partition(b"\r\n\r\n")
    return head.decode("latin-1"), rest


def request(port, method, path, headers, *more):
    """The text of a request's head."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: localhost:{port}", *headers, *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def status(answer):
    return int(answer.split(" ", 2)[1])


def length(answer):
    for line in answer.split("\r\n"):
        name, _, value = line.partition(":")
        if name.lower() == "content-length":
            return int(value)
    raise Failed(f"no Content-Length in {answer[:200]!r}")


def get(connection, port, path, headers):
    """One GET on a connection that stays open."""
    connection.sendall(request(port, "GET", path, headers))
    answer, rest = head(connection)
    left = length(answer) - len(rest)
    while left > 0:
        left -= len(connection.recv(65536))
    return status(answer)


def idle_connections(port, path, headers, count, tls):
    """Connections that have each carried one request and now wait."""
    kept = contextlib.ExitStack()
    for _ in range(count):
        connection = kept.enter_context(connect(port, tls))
        if (code := get(connection, port, path, headers)) != 200:
            raise Failed(f"status {code} instead of 200")
    return kept


def websockets(port, path, headers, count, tls):
    """WebSockets that have each echoed one frame and now wait."""
    kept = contextlib.ExitStack()
    upgrade = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    upgrade += [f"Sec-WebSocket-Key: {WEBSOCKET_KEY}", f"Origin: https://localhost:{port}"]
    for _ in range(count):
        connection = kept.enter_context(connect(port, tls))
        connection.sendall(request(port, "GET", path, headers, *upgrade))
        answer, rest = head(connection)
        if status(answer) != 101:
            raise Failed(f"no WebSocket: {answer[:200]}")
        connection.sendall(FRAME)
        while len(rest) < len(FRAME):
            part = connection.recv(4096)
            if not part:
                raise Failed("the WebSocket ended")
            rest += part
    return kept


def download(port, prefix, headers, size, tls):
    """Reads a body of `size` bytes and throws it away."""
    buffer = bytearray(1 << 20)
    with connect(port, tls) as connection:
        connection.sendall(request(port, "GET", f"{prefix}/bytes/{size}", headers))
        answer, rest = head(connection)
        if status(answer) != 200 or length(answer) != size:
            raise Failed(f"download: {answer[:200]}")
        left = size - len(rest)
        while left > 0:
            got = connection.recv_into(buffer)
            if got == 0:
                raise Failed(f"the download was cut with {left} bytes to go")
            left -= got


def upload(port, prefix, headers, size, tls):
    """Sends a body of `size` bytes; the application says how much it got."""
    with connect(port, tls) as connection:
        connection.sendall(request(port, "POST", f"{prefix}/upload", headers, f"Content-Length: {size}"))
        left = size
        while left > 0:
            piece = PIECE if left >= len(PIECE) else PIECE[:left]
            connection.sendall(piece)
            left -= len(piece)
        answer, rest = head(connection)
        if status(answer) != 200 or int(rest or connection.recv(64)) != size:
            raise Failed(f"upload: {answer[:200]}")
