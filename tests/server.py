"""A web server on this machine that keeps one file, and has the faults that a test scripts."""

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_REAL = object()


class FileServer(ThreadingHTTPServer):
    """Serves a file at any path, with ranges and a tag.

    Faults are functions of a handler, which answer a request in place of the file: each is used
    once, in their order.
    """

    def __init__(self, content, *, faults=(), tag='"one"'):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content, self.tag, self.faults = content, tag, list(faults)
        self.requests = []  # the range of each, "" for the whole file
        self.released = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/x.h5"

    def close(self):
        self.released.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        wanted = self.headers.get("Range", "")
        server.requests.append(wanted)
        if server.faults:
            server.faults.pop(0)(self)
            return
        whole = server.content
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted else 0
        if start and self.headers.get("If-Range", server.tag) != server.tag:
            start = 0
        if start >= len(whole):
            self.answer(b"", 416, {"Content-Range": f"bytes */{len(whole)}"})
            return
        place = {"Content-Range": f"bytes {start}-{len(whole) - 1}/{len(whole)}"} if start else {}
        self.answer(whole[start:], 206 if start else 200, place)

    def answer(self, body, status=200, headers=(), length=_REAL):
        self.send_response(status)
        if self.server.tag:
            self.send_header("ETag", self.server.tag)
        if length is not None:
            self.send_header("Content-Length", str(len(body) if length is _REAL else length))
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def answer(body=b"", status=200, headers=(), **length):
    """A response that is not the file."""
    return lambda handler: handler.answer(body, status, headers, **length)


def cut(count):
    """The first bytes of the file, and the end of the connection."""

    def send(handler):
        content = handler.server.content
        handler.answer(content[:count], length=len(content))

    return send


def stall(count):
    """The first bytes of the file, and then nothing until the server ends."""

    def send(handler):
        cut(count)(handler)
        handler.wfile.flush()
        handler.server.released.wait(10)

    return send
