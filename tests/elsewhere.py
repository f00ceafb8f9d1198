"""A folder on a loopback server that honours ranges and fails on request, as real ones do."""

import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

Fault = Literal[
    "cut",
    "stall",
    "corrupt",
    "503",
    "403",
    "401",
    "whole",
    "whole as a part",
    "short",
    "huge",
    "to a file",
    "in a circle",
    "no ranges",
]


@dataclass(frozen=True)
class Request:
    path: str
    start: int | None = None
    end: int | None = None
    authorization: str | None = None


@dataclass
class Elsewhere:
    url: str
    folder: Path
    asked: list[Request] = field(default_factory=list)
    fault: Callable[[Request], Fault | None] = lambda _: None
    released: threading.Event = field(default_factory=threading.Event)
    """Ends all stalls."""

    def first(self, times: int, fault: Fault, ending: str = ".records") -> None:
        """The first requests for some files fail."""
        left = [fault] * times
        self.fault = lambda request: left.pop() if request.path.endswith(ending) and left else None


@contextmanager
def elsewhere(folder: Path, prefix: str = "") -> Iterator[Elsewhere]:
    """The folder at an address while the block runs; `prefix` stands before the paths in it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_HEAD(self) -> None:
            path = folder / self.path.removeprefix(prefix).lstrip("/")
            self.send_response(200 if path.is_file() else 404)
            self.send_header("Content-Length", str(path.stat().st_size if path.is_file() else 0))
            self.end_headers()

        def do_GET(self) -> None:
            match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"] or "")
            part = (int(match[1]), int(match[2]) + 1) if match else (None, None)
            request = Request(self.path.removeprefix(prefix), *part, self.headers["Authorization"])
            state.asked.append(request)
            try:
                _answer(self, request, state)
            except ConnectionError:
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exception(), ConnectionError):  # a client that has read enough
                super().handle_error(request, client_address)

    http = Server(("127.0.0.1", 0), Handler)
    state = Elsewhere(f"http://127.0.0.1:{http.server_port}", folder)
    thread = threading.Thread(target=http.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield state
    finally:
        state.released.set()
        http.shutdown()
        thread.join()
        http.server_close()


def _answer(handler: BaseHTTPRequestHandler, request: Request, state: Elsewhere) -> None:
    fault, path = state.fault(request), state.folder / request.path.partition("?")[0].lstrip("/")
    if fault in ("to a file", "in a circle"):
        handler.send_response(302)
        handler.send_header("Location", f"file://{path}" if fault == "to a file" else handler.path)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return
    if fault in ("503", "403", "401") or not path.is_file():
        handler.send_response(int(fault or 404))
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return
    if request.start is not None and request.start >= path.stat().st_size:
        handler.send_error(416)
        return
    body, whole = path.read_bytes(), request.start is None or fault in ("whole", "whole as a part", "no ranges")
    part = body if whole else body[request.start : request.end]
    if fault == "corrupt":
        part = part[:-1] + bytes([part[-1] ^ 1])
    if fault == "short":
        part = part[: len(part) // 2]
    if fault == "huge":
        part *= 50
    ranged = request.start is not None and fault not in ("whole", "no ranges")
    handler.send_response(206 if ranged else 200)
    if ranged:
        handler.send_header("Content-Range", f"bytes {request.start}-{request.end - 1}/{len(body)}")
    if fault != "no ranges":
        handler.send_header("Accept-Ranges", "bytes")
    handler.send_header("Content-Length", str(len(part)))
    handler.end_headers()
    broken = fault in ("cut", "stall")
    handler.wfile.write(part[: len(part) // 2] if broken else part)
    handler.wfile.flush()
    if fault == "stall":
        state.released.wait(20)
    handler.close_connection = broken
