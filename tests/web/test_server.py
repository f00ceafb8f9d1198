"""The server, over real connections: what it sends, and what it refuses."""

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from reading import read
from starlette.types import ASGIApp

from alexnet import words
from alexnet.cli import main
from alexnet.data.store import Store
from alexnet.errors import CheckpointError, UsageError
from alexnet.web import connections, export, server
from alexnet.web.shown import offers
from conftest import draw

MOST_BYTES, MOST_PIXELS = 200_000, 10_000


class Client:
    """One server, and requests to it."""

    def __init__(self, port: int) -> None:
        self.port = port
        page = self.ask("GET", "/")[1].decode()
        self.about = json.loads(re.findall(r'id="page">(.*?)</script>', page)[0])
        self.headers = {server.TOKEN: self.about["token"]}

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        try:
            return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
        finally:
            connection.close()

    def error(self, path: str, body: bytes = b"", **headers: str) -> tuple[int, str, str]:
        status, answer, _ = self.ask("POST", path, body, {**self.headers, **headers})
        error = json.loads(answer)["error"]
        return status, error["key"], error["text"]


@pytest.fixture(scope="module")
def client(run: Path) -> Iterator[Client]:
    studio = server.Studio(offers([str(run)]), None, MOST_PIXELS, MOST_BYTES)
    with serving(server.create_app(studio)) as port:
        yield Client(port)


@contextmanager
def serving(app: ASGIApp) -> Iterator[int]:
    """The port of a server."""
    with server.listen(0) as listening:
        running = uvicorn.Server(server.configured(app))
        thread = threading.Thread(target=running.run, args=([listening],))
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            running.should_exit = True
            thread.join(30)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("served") / "red.png"
    draw((200, 50, 40), 77, (90, 61)).save(path)
    return path.read_bytes()


def test_the_page(client: Client) -> None:
    """Everything that it loads is there, and the policy allows nothing else."""
    status, page, headers = client.ask("GET", "/")
    assert status == 200 and client.about["mode"] == "served"
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'" and policy["connect-src"] == "'self'" and "unsafe" not in str(policy)
    imports = re.findall(r'<script type="importmap">(.*?)</script>', page.decode())[0]
    assert policy["script-src"] == f"'self' {export.script_hash(imports)}"
    for address in [*json.loads(imports)["imports"].values(), "/page/style.css", "/page/words/zh.json"]:
        status, content, headers = client.ask("GET", address)
        assert status == 200 and content == export.asset(address.removeprefix("/page/"))
        assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-type"].startswith("application/json")


def test_a_scene(client: Client, photo: bytes, run: Path) -> None:
    status, scene, headers = client.ask("POST", "/scene?network=run-1&name=%E7%8C%AB.png", photo, client.headers)
    assert status == 200 and int(headers["content-length"]) == len(scene)
    description, arrays = read(scene)
    assert description["network"]["name"] == str(run) and description["picture"]["name"] == "猫.png"
    assert (description["picture"]["width"], description["picture"]["height"]) == (90, 61)
    assert arrays["probabilities"].sum() == pytest.approx(1, abs=1e-5)


def test_a_store(run: Path, store: Store, photo: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Runs show what their kernels like in it; a network by chance does not; nor does a run that
    cannot be shown at all.
    """
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path))
    studio = server.Studio(offers([str(run)]), store)
    description, _ = read(studio.scene("run-1", photo, ""))
    assert all(len(unit["patches"]) == 9 for unit in description["units"]["conv2"])
    assert studio.network("fresh-paper")[1] is None
    shown, _ = studio.network("run-1")
    shown.model.conv1.weight.mul_(1e38)
    with pytest.raises(server.Refused) as refused:
        studio.scene("run-1", photo, "")
    assert (refused.value.status, refused.value.key) == (400, "error_network")


def test_same_origin(client: Client, photo: bytes) -> None:
    """The page of this server may send its origin; a foreign one is refused, and so is a request
    without the token.
    """
    own = {"origin": f"http://127.0.0.1:{client.port}"}
    assert client.ask("POST", "/scene?network=run-1", photo, {**client.headers, **own})[0] == 200
    for headers in ({}, {server.TOKEN: "x"}, {server.TOKEN: "é"}):
        assert client.ask("POST", "/scene", photo, headers)[0] == 403
    for origin in ("http://evil.example", "null", "http://[", f"http://127.0.0.1:{client.port + 1}"):
        assert client.error("/scene", photo, origin=origin)[:2] == (403, "error_foreign")


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost", 200), ("LOCALHOST:99", 200), ("[::1]:2012", 200), ("127.0.0.1", 200)]
    + [
        (host, 403)
        for host in ("evil.example", "127.0.0.1.evil.example:2012", "127.0.0.1@evil.example", "", "[", "192.168.0.1")
    ],
)
def test_own_names_only(client: Client, host: str, status: int) -> None:
    """Else the page of a site whose name points to this machine would be one of ours."""
    assert client.ask("GET", "/", headers={"host": host})[0] == status


@pytest.mark.parametrize(
    "path",
    ["/page/../export.py", "/page/..%2fexport.py", "/page//etc/passwd", "/page/words", "/page/", "/nothing", "/page/%00"],
)
def test_no_other_files(client: Client, path: str) -> None:
    assert client.ask("GET", path)[0] == 404


def test_pictures_that_are_refused(client: Client, photo: bytes, tmp_path: Path) -> None:
    draw((9, 9, 9), 1, (120, 100)).save(tmp_path / "large.png")
    for body, expected in (
        (b"", (400, "error_not_a_picture")),
        (b"hello", (400, "error_not_a_picture")),
        (b"\x89PNG\r\n\x1a\n" + b"x" * 99, (400, "error_damaged")),
        (photo[:-400], (400, "error_damaged")),
        ((tmp_path / "large.png").read_bytes(), (413, "error_pixels")),
        (photo + bytes(MOST_BYTES), (413, "error_bytes")),
    ):
        status, key, text = client.error("/scene", body)
        assert (status, key) == expected
        assert client.error("/scene?lang=zh", body)[2] != text
        assert text.partition("{")[0][:20] == words.ENGLISH[key].partition("{")[0][:20]
    assert client.error("/scene?network=none")[:2] == (404, "error_network")


def test_more_bytes_than_declared(client: Client) -> None:
    """A body without a length is counted as it comes."""

    def parts() -> Iterator[bytes]:
        for _ in range(10):
            yield bytes(MOST_BYTES // 5)

    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=60)
    try:
        connection.request("POST", "/scene", parts(), {**client.headers, "transfer-encoding": "chunked"}, encode_chunked=True)
        assert connection.getresponse().status == 413
    except (ConnectionResetError, BrokenPipeError):
        pass  # the server has closed while we were sending
    finally:
        connection.close()


def opened(stack: ExitStack, port: int, count: int) -> list[socket.socket]:
    """So many connections, which send nothing."""
    return [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30)) for _ in range(count)]


def test_bodies_that_do_not_arrive(run: Path, photo: bytes) -> None:
    """More than are received at once: the page opens, and another picture is shown when they have
    had their seconds.
    """
    studio = server.Studio(offers([str(run)]), body_seconds=1)
    with serving(server.create_app(studio)) as port, ExitStack() as stack:
        slow = opened(stack, port, server.MOST_SCENES + 4)
        head = f"POST /scene HTTP/1.1\r\nHost: localhost\r\n{server.TOKEN}: {studio.token}\r\nContent-Length: 9\r\n\r\nabc"
        for connection in slow:
            connection.sendall(head.encode())
        begun = time.monotonic()
        client = Client(port)
        assert time.monotonic() - begun < 0.9
        assert client.ask("POST", "/scene?network=run-1", photo, client.headers)[0] == 200
        assert time.monotonic() - begun > 0.9  # when the first ones have had their second
        answers = [connection.makefile("rb").read().decode() for connection in slow]  # to the end: each is closed
        assert all("408 Request Timeout" in answer for answer in answers)
        assert "The picture did not arrive within 1 seconds" in answers[0]


def test_connections_that_send_nothing(run: Path, photo: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty of them do not keep the page from opening, and are closed in time. So is one that sends
    a head byte by byte, but none that waits for its scene.
    """
    assert connections.HEAD_SECONDS == 10
    monkeypatch.setattr(connections, "HEAD_SECONDS", 2.0)
    studio = server.Studio(offers([str(run)]))
    with serving(server.create_app(studio)) as port, ExitStack() as stack:
        begun = time.monotonic()
        silent, (slow, late) = opened(stack, port, 40), opened(stack, port, 2)
        client = Client(port)
        assert client.ask("GET", "/")[0] == 200 and time.monotonic() - begun < 1
        late.sendall(b"GET / HTTP/1.1\r\nHost: local")
        time.sleep(0.3)
        late.sendall(b"host\r\n\r\n")
        assert late.recv(20).startswith(b"HTTP/1.1 200")
        with suppress(ConnectionError):
            for byte in b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 99:
                slow.sendall(bytes([byte]))
                time.sleep(0.1)
        assert 2 <= time.monotonic() - begun < 6
        assert all(connection.recv(1) == b"" for connection in silent)
        monkeypatch.setattr(studio, "scene", lambda *_: time.sleep(2.5) or b"scene")
        assert client.ask("POST", "/scene", photo, client.headers)[:2] == (200, b"scene")


def test_a_sample(client: Client) -> None:
    studio = server.Studio(offers())
    assert list(studio.offers)[-1] == "fresh-torchvision" and studio.offers["fresh-owt"].source == "fresh"
    assert client.error("/scene?sample=1")[:2] == (413, "error_pixels")  # this server takes 10,000


def test_ports(capsys: pytest.CaptureFixture[str], run: Path) -> None:
    with server.listen(0) as taken:
        port = taken.getsockname()[1]
        assert server.address(taken) == f"http://127.0.0.1:{port}/"
        with pytest.raises(SystemExit):
            main(["serve", str(run), "--port", str(port)])
    assert re.search(rf"port \(={port}\) cannot be used \(.*\): stop the program.*--port", capsys.readouterr().err)
    for wrong in (-1, 65536):
        with pytest.raises(UsageError, match="from 0 to 65535"):
            server.listen(wrong)


@pytest.mark.parametrize("uploading", [False, True])
def test_it_ends_at_ctrl_c(tmp_path: Path, uploading: bool) -> None:
    """In the middle of an upload too. The one line on standard output is the address."""
    command = [sys.executable, "-m", "alexnet", "serve", "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        url = process.stdout.readline().strip()
        connection = http.client.HTTPConnection(url.removeprefix("http://").strip("/"), timeout=60)
        connection.request("GET", "/")  # kept open while the server stops
        answer = connection.getresponse()
        token = json.loads(re.findall(r'id="page">(.*?)</script>', answer.read().decode())[0])["token"]
        assert answer.status == 200
        if uploading:
            connection.putrequest("POST", "/scene")
            connection.putheader(server.TOKEN, token)
            connection.putheader("content-length", "9")
            connection.endheaders(b"abc")
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        rest, said = process.communicate(timeout=60)
        connection.close()
    assert (process.returncode, rest) == (0, "")
    assert [line.partition(".")[0] for line in said.splitlines()] == ["Showing paper first", "Stopped"]


def test_a_run_without_weights(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, reason in (
        (tmp_path / "empty", r"has no latest\.safetensors: it is not a run"),
        (tmp_path / "none", "does not exist"),
    ):
        with pytest.raises(CheckpointError, match=reason):
            offers([str(name)])


def test_networks_leave_memory(run: Path) -> None:
    """Two are kept; a third replaces the one that was not used for longest."""
    small: dict[str, Any] = offers([str(run)] * 3)
    studio = server.Studio(small)
    first = studio.network("run-1")
    studio.network("run-2")
    assert studio.network("run-1") is first
    studio.network("run-3")
    assert list(studio.loaded) == ["run-1", "run-3"]
