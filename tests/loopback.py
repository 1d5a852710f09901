"""A file server on 127.0.0.1 that misbehaves when told to, and keeps a log of what it sent."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Loopback(ThreadingHTTPServer):
    """Attributes may be changed between requests.

    files: content by path, e.g. "/a". Requests for anything else are answered with 404.
    headers: of every answer, e.g. {"ETag": '"1"'}.
    faults: what goes wrong with the next downloads, first to last; None is none. ("cut", n) closes
        after n bytes, ("stall", n) falls silent after n bytes, ("status", code) refuses.
    ranges: whether Range requests are understood.
    claims: bytes added to each size that is told.
    tells_size: whether a size is told at all.
    after_probe: called with each request for the first byte alone, once its answer is fixed.
    sent: (path, Range header, status, bytes sent) of each download; probes are left out.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.headers, self.faults, self.sent = {}, {}, [], []
        self.ranges, self.claims, self.tells_size = True, 0, True
        self.requests, self.after_probe = [], lambda: None
        self.released = threading.Event()
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.released.set()
        self.shutdown()
        self.thread.join()
        self.server_close()

    def link(self, path):
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        server.requests.append((self.path, dict(self.headers)))
        if self.path.startswith("/moved"):
            return self.answer(302, {"Location": self.path.removeprefix("/moved")})
        if self.path not in server.files:
            return self.answer(404, {})
        probe = asked == "bytes=0-0"
        kind, value = (server.faults.pop(0) or ("", 0)) if server.faults and not probe else ("", 0)
        if kind == "status":
            return self.answer(value, {})
        self.send(server.files[self.path], asked, kind, value, probe)

    def send(self, content, asked, kind, value, probe):
        server = self.server
        same = self.headers.get("If-Range") in (None, *server.headers.values())
        size = len(content) + server.claims
        if asked and server.ranges and same:
            first, last = asked.removeprefix("bytes=").split("-")
            body = content[int(first) : int(last) + 1 if last else None]
            last = last or size - 1
            status, headers = 206, {"Content-Range": f"bytes {first}-{last}/{size}"}
        else:
            body, status = content, 200
            headers = {"Content-Length": str(size)} if server.tells_size else {}
        body = body[:value] if kind else body
        headers |= server.headers
        # Both before sending: whoever has the bytes may go on at once.
        if probe:
            server.after_probe()
        else:
            server.sent.append((self.path, asked, status, len(body)))
        self.answer(status, headers)
        with contextlib.suppress(ConnectionError):  # a client closes its probe early
            self.wfile.write(body)
        if kind == "stall":
            server.released.wait(20)

    def answer(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *words):
        pass
