#!/usr/bin/env python3
"""An application on Python's http.server: answers with the method and the target, and writes down every request that it
read to its end: method, target, and body in hex, with tabs between. Arguments: port, file."""

import http.server
import sys


class Recorder(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body

    def do_GET(self):
        promised = int(self.headers.get("Content-Length") or 0)
        try:
            body = self.body()
        except (ValueError, OSError):
            self.close_connection = True
            return
        if len(body) < promised:
            self.close_connection = True
            return
        print(f"{self.command}\t{self.path}\th:{body.hex()}", file=LOG, flush=True)
        answer = f"{self.command} {self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.do_GET
        raise AttributeError(name)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Connections that end in the middle are what the attack is about."""


if __name__ == "__main__":
    LOG = open(sys.argv[2], "a")
    Server(("127.0.0.1", int(sys.argv[1])), Recorder).serve_forever()
