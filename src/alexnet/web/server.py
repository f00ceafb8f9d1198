"""The page served on this machine: scenes are made on request, for any picture and any of the
networks that it was started with.

`create_app` makes the application, `run` serves it. A browser lets any page of the web send
requests to this machine, so the server answers only to the names that this machine has for itself
(a foreign name that points here is refused), and makes scenes only for a page that it has sent
(which knows the token). It sends files of the page alone, by their names in a table. One scene is
made at a time: a second one would slow both. `connections.py` ends connections that send nothing.
"""

import asyncio
import json
import logging
import secrets
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from alexnet.data.formats import TooManyPixels, UnknownFormat
from alexnet.data.limits import MAX_PIXELS
from alexnet.data.sources.read import HEAD_BYTES, starts_like_a_picture
from alexnet.data.store import Store
from alexnet.errors import AlexNetError, CheckpointError, SourceError, UsageError
from alexnet.web import export, sample
from alexnet.web.connections import AtMost, HeadInTime
from alexnet.web.scene import Scene
from alexnet.web.shown import Offer, Shown
from alexnet.web.units import Liked
from alexnet.words import CATALOGUE, word

HOST = "127.0.0.1"
#: What this machine is called by a program that runs on it.
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MB = 1_000_000
#: Bytes of a picture. A phone's largest photos have about 20 MB.
MOST_BYTES = 40 * MB
TOKEN = "x-alexnet-token"
#: Bytes of a scene that are sent at a time.
CHUNK = 1 << 20
#: Networks that are kept in memory, 244 MB each at full width.
KEPT = 2
#: Pictures that are received, shown and sent back at once; the page itself always opens.
MOST_SCENES = 16
#: Seconds for a picture to arrive: without a limit, `MOST_SCENES` slow ones would block all others.
BODY_SECONDS = 30
#: Seconds that open requests have when the server is stopped.
GRACE = 3
KINDS = {"js": "text/javascript", "css": "text/css", "json": "application/json", "svg": "image/svg+xml"}
POLICY = (
    "default-src 'none'; script-src 'self' {imports}; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "cache-control": "no-store",
}


class Refused(Exception):
    """A request that is answered with one of the catalogue's sentences."""

    def __init__(self, status: int, key: str, **values: object) -> None:
        super().__init__(key)
        self.status, self.key, self.values = status, key, values


@dataclass
class Studio:
    """The networks, and the one place where scenes are made.

    Attributes:
        offers: by identifier, the first of them shown first.
        store: where to look for what the kernels of runs like.
        token: what a page of this server sends with a picture.
        loaded: networks in memory, the one used last at the end.
    """

    offers: Mapping[str, Offer]
    store: Store | None = None
    max_pixels: int = MAX_PIXELS
    max_bytes: int = MOST_BYTES
    body_seconds: float = BODY_SECONDS
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    loaded: dict[str, tuple[Shown, Liked | None]] = field(default_factory=dict)
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)

    def network(self, identifier: str) -> tuple[Shown, Liked | None]:
        """A network and what its kernels like, read if they are not in memory.

        Raises:
            Refused: unknown, or not readable.
        """
        if identifier not in self.offers:
            raise Refused(404, "error_network", reason=identifier)
        found = self.loaded.pop(identifier, None)
        if found is None:
            while len(self.loaded) >= KEPT:
                self.loaded.pop(next(iter(self.loaded)))
            try:
                found = self.read(self.offers[identifier])
            except AlexNetError as error:
                raise Refused(400, "error_network", reason=error) from error
        self.loaded[identifier] = found
        return found

    def read(self, offer: Offer) -> tuple[Shown, Liked | None]:
        """Read a network; of a run, also look for what its kernels like, where there is a store.

        Raises:
            AlexNetError: it cannot be read, or the store does not fit it.
        """
        shown = offer.load()
        return shown, Liked.of(shown, self.store) if self.store and offer.source in ("run", "demo") else None

    def scene(self, identifier: str, picture: bytes, name: str) -> bytes:
        """The bytes of a scene.

        Raises:
            Refused: see `network`; or it is not a picture, or too large a one.
        """
        shown, liked = self.network(identifier)
        if not starts_like_a_picture(picture[:HEAD_BYTES]):
            raise Refused(400, "error_not_a_picture")
        try:
            return Scene.of(shown, picture, name, liked, self.max_pixels).to_bytes()
        except SourceError as error:
            reason = error.__cause__
            if isinstance(reason, TooManyPixels):
                raise Refused(413, "error_pixels", limit=self.max_pixels // MB) from error
            raise Refused(400, "error_not_a_picture" if isinstance(reason, UnknownFormat) else "error_damaged") from error
        except CheckpointError as error:
            raise Refused(400, "error_network", reason=error) from error


def create_app(studio: Studio, language: str | None = None) -> ASGIApp:
    """The application.

    Args:
        studio: the networks.
        language: in which the page opens; the browser's own if None.
    """
    html, policy = _page(studio, language)

    async def page(_: Request) -> Response:
        return Response(html, media_type="text/html", headers={"content-security-policy": policy})

    async def asset(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in export.assets():
            raise Refused(404, "error_unknown")
        return Response(export.asset(name), media_type=KINDS.get(name.rpartition(".")[2], "application/octet-stream"))

    async def scene(request: Request) -> Response:
        _check_origin(request, studio.token)
        identifier = request.query_params.get("network", next(iter(studio.offers)))
        if request.query_params.get("sample"):
            picture, name = sample.picture(), sample.NAME
        else:
            picture, name = await _body_in_time(request, studio), request.query_params.get("name", "")
        async with studio.busy:
            made = await run_in_threadpool(studio.scene, identifier, picture, name)
        return StreamingResponse(
            _chunks(made), media_type="application/octet-stream", headers={"content-length": str(len(made))}
        )

    routes = [
        Route("/", page),
        Route("/page/{name:path}", asset),
        Route("/scene", scene, methods=["POST"], middleware=[Middleware(AtMost, most=MOST_SCENES)]),
        Route("/{rest:path}", _nothing),
    ]
    return _OwnNameOnly(Starlette(routes=routes, exception_handlers={Refused: _refusal, ClientDisconnect: _gone}))


def configured(app: ASGIApp) -> uvicorn.Config:
    """How uvicorn serves the application."""
    return uvicorn.Config(
        app,
        http=HeadInTime,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=GRACE,
    )


def run(app: ASGIApp, listening: socket.socket) -> None:
    """Serve until the process is interrupted.

    Raises:
        KeyboardInterrupt: it was.
    """
    log = logging.getLogger("uvicorn.error")
    log.addFilter(_not_of_stopping)
    try:
        uvicorn.Server(configured(app)).run([listening])
    finally:
        log.removeFilter(_not_of_stopping)


def _not_of_stopping(record: logging.LogRecord) -> bool:
    """Whether to log a record: not if it is about open requests that end because the server is
    being stopped.
    """
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, asyncio.CancelledError) and not str(record.msg).startswith("Cancel ")


def listen(port: int) -> socket.socket:
    """A socket of this machine alone.

    Args:
        port: 0 for any that is free.

    Raises:
        UsageError: the port is in use, may not be used, or is not a port.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"port (={port}) must be from 0 to 65535; 0 takes any free one.")
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows, where SO_REUSEADDR would share the port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise UsageError(
            f"port (={port}) cannot be used ({error.strerror}): stop the program that has it, or choose another one with "
            "--port; --port 0 takes any free one."
        ) from error
    return listening


def address(listening: socket.socket) -> str:
    """The page's address."""
    host, port = listening.getsockname()
    return f"http://{host}:{port}/"


def _page(studio: Studio, language: str | None) -> tuple[str, str]:
    """The page, and its Content-Security-Policy."""
    imports = export.json_text({"imports": {name: f"/page/{name}.js" for name in export.modules()}})
    about = {
        "mode": "served",
        "lang": language,
        "networks": [
            {"id": identifier, "label": offer.label, "source": offer.source} for identifier, offer in studio.offers.items()
        ],
        "token": studio.token,
        "limits": {"bytes": studio.max_bytes, "pixels": studio.max_pixels},
    }
    html = export.fill(
        csp="",
        style='<link rel="stylesheet" href="/page/style.css">',
        importmap=imports,
        words=export.json_text(export.words()),
        page=export.json_text(about),
        scene="",
        start='<script type="module" src="/page/main.js"></script>',
    )
    return html, POLICY.format(imports=export.script_hash(imports))


def _check_origin(request: Request, token: str) -> None:
    """Refuse what another page than ours sends; a page of another origin cannot read the token."""
    origin, given = request.headers.get("origin"), request.headers.get(TOKEN, "")
    foreign = origin is not None and _place(origin) != request.headers.get("host")
    if foreign or not secrets.compare_digest(given.encode(), token.encode()):
        raise Refused(403, "error_foreign")


async def _body_in_time(request: Request, studio: Studio) -> bytes:
    """The bytes of a request.

    Raises:
        Refused: they are too many, or took longer than `studio.body_seconds`.
    """
    try:
        async with asyncio.timeout(studio.body_seconds):
            return await _body(request, studio.max_bytes)
    except TimeoutError as error:
        raise Refused(408, "error_slow", seconds=f"{studio.body_seconds:g}") from error


async def _body(request: Request, most: int) -> bytes:
    """The bytes of a request, which are counted as they come: what they say of their number may be
    wrong.
    """
    parts, length = list[bytes](), 0
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > most:
        raise Refused(413, "error_bytes", limit=most // MB)
    async for part in request.stream():
        length += len(part)
        if length > most:
            raise Refused(413, "error_bytes", limit=most // MB)
        parts.append(part)
    return b"".join(parts)


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), CHUNK):
        yield data[start : start + CHUNK]


async def _nothing(_: Request) -> Response:
    raise Refused(404, "error_unknown")


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    language = request.query_params.get("lang", "en")
    text = word(error.key, language if language in CATALOGUE else "en", **error.values)
    return JSONResponse({"error": {"key": error.key, "text": text}}, error.status, {"connection": "close"})


async def _gone(_: Request, __: Exception) -> Response:
    """The page was closed while it sent a picture."""
    return Response(status_code=400)


class _OwnNameOnly:
    """Answers requests to this machine's own names only, and adds the headers that every answer
    has. A foreign name that points to this machine would make the page of a foreign site a page of
    ours ("DNS rebinding").
    """

    def __init__(self, app: ASGIApp, names: Sequence[str] = LOOPBACK) -> None:
        self.app, self.names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *own]
            await send(message)

        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1 or _name(hosts[0]) not in self.names:
            text = json.dumps({"error": {"key": "error_foreign", "text": word("error_foreign", "en")}})
            await Response(text, 403, media_type="application/json")(scope, receive, with_headers)
        else:
            await self.app(scope, receive, with_headers)


def _place(origin: str) -> str | None:
    """The name and port in an Origin header; None of one that is no address."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _name(host: str) -> str | None:
    """The name in a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
