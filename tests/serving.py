"""A server on the loopback that fails in every way that real ones do."""

import random
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CONTENT = random.Random(2012).randbytes(300_000)


@dataclass
class Answer:
    """How the server behaves for one request; the defaults are those of a good server."""

    status: int = 200
    body: bytes = CONTENT
    etag: str | None = '"v1"'
    modified: str | None = None
    ranges: bool = True
    check_version: bool = True
    """False: honours Range, but not If-Range."""
    shift: int = 0
    """A range begins that many bytes after the one asked for."""
    cut_after: int | None = None
    stall_after: int | None = None
    length: int | None = None
    """Declared Content-Length if not the true one; -1 declares none."""
    location: str | None = None


@dataclass
class Asked:
    path: str
    range: str | None
    if_range: str | None


@dataclass
class Server:
    url: str
    usual: Answer = field(default_factory=Answer)
    next: deque[Answer] = field(default_factory=deque)
    """Behaviour for the first requests; `usual` after them."""
    asked: list[Asked] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    """Ends all stalls."""

    @property
    def ranges(self) -> list[str | None]:
        return [request.range for request in self.asked]


@contextmanager
def serving() -> Iterator[Server]:
    """A server on the loopback while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(Asked(self.path, self.headers["Range"], self.headers["If-Range"]))
            answer(self, state.next.popleft() if state.next else state.usual, state)

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = Server(f"http://127.0.0.1:{http.server_port}")
    thread = threading.Thread(target=http.serve_forever, args=(0.02,))
    thread.start()
    yield state
    state.released.set()
    http.shutdown()
    thread.join()
    http.server_close()


def answer(handler: BaseHTTPRequestHandler, how: Answer, state: Server) -> None:
    asked, same = state.asked[-1], state.asked[-1].if_range in (how.etag, how.modified) or not how.check_version
    start = int(asked.range[6:-1]) + how.shift if how.ranges and asked.range and same and how.status == 200 else 0
    if start >= len(how.body) > 0:
        handler.send_error(416)
        return
    handler.send_response(206 if start else how.status)
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(how.body) - 1}/{len(how.body)}")
    for name, value in (("ETag", how.etag), ("Last-Modified", how.modified), ("Location", how.location)):
        if value:
            handler.send_header(name, value)
    if how.length != -1:
        handler.send_header("Content-Length", str(how.length or len(how.body) - start))
    handler.end_headers()
    end = len(how.body)
    if how.cut_after is not None or how.stall_after is not None:
        end = start + (how.cut_after or how.stall_after or 0)
    try:
        handler.wfile.write(how.body[start:end])
        handler.wfile.flush()
        if how.stall_after is not None:
            state.released.wait(20)
    except ConnectionError:
        pass
