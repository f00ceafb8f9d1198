"""Standard streams that are full, closed, not UTF-8, or without a reader: one line, an
exit status, no traceback.
"""

import errno
import io
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from alexnet import engines
from alexnet.cli import failures, main
from alexnet.data.store import Store
from alexnet.engines import Engine
from alexnet.predict import predict
from conftest import draw

FULL = Path("/dev/full")
FAST = ("--width", "0.125", "--compile", "off", "--device", "cpu")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="closes and fills streams as Unix does")


def shell(words: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`alexnet`, as a shell runs it with these redirections; $A is the command."""
    code = "from alexnet.cli import main; main()"
    command = f'set -o pipefail; A() {{ "{sys.executable}" -c "{code}" "$@"; }}; {words}'
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=120, env={**os.environ, **(environment or {})}
    )


@pytest.fixture
def verbs(run: Path, store: Store, tmp_path: Path) -> dict[str, list[str]]:
    """A command line that prints, for each verb that is done in seconds."""
    draw((200, 50, 40), 77).save(tmp_path / "x.png")
    picture, data, weights = str(tmp_path / "x.png"), str(store.folder), str(run / "latest.safetensors")
    return {
        "overview": [],
        "help": ["help"],
        "help of a verb": ["predict", "--help"],
        "summary": ["summary"],
        "summary as json": ["summary", "--format", "json"],
        "summary, explained": ["summary", "--explain"],
        "weights list": ["weights", "list"],
        "weights verify": ["weights", "verify", weights],
        "weights import": ["weights", "import", weights, "-o", str(tmp_path / "y.safetensors")],
        "export": ["export", str(run), "--to", "safetensors", "-o", str(tmp_path / "z.safetensors")],
        "verify a store": ["verify", data],
        "verify a run": ["verify", str(run), "--data", data],
        "evaluate": ["evaluate", str(run), "--data", data],
        "predict": ["predict", str(run), picture],
        "predict as json": ["predict", str(run), picture, "--format", "jsonl"],
        "predict as csv": ["predict", str(run), picture, "--format", "csv"],
        "compare": ["compare", "paper", "caffe", "--weights", weights, "--image", picture],
        "doctor": ["doctor", "laptop", "--data", data, *FAST],
        "report": ["report", str(run), "--data", data, "--out", str(tmp_path / "report.html")],
    }


VERBS = [
    "overview",
    "help",
    "help of a verb",
    "summary",
    "summary as json",
    "summary, explained",
    "weights list",
    "weights verify",
    "weights import",
    "export",
    "verify a store",
    "verify a run",
    "evaluate",
    "predict",
    "predict as json",
    "predict as csv",
    "compare",
    "doctor",
    "report",
]


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("verb", VERBS)
def test_a_full_disk_under_standard_output(
    verb: str, verbs: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line that names it, and status 2, also where the verb found
    something to say with status 1.
    """
    with FULL.open("w") as stream, pytest.raises(SystemExit) as stop:
        monkeypatch.setattr(sys, "stdout", stream)
        main(verbs[verb])
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "alexnet: standard output: No space left on device"
    assert not any("Traceback" in line for line in lines)


@pytest.mark.parametrize("verb", ["doctor", "evaluate"])
def test_json_that_cannot_be_written_is_refused_before_the_work(
    verb: str, verbs: dict[str, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*verbs[verb], "--json", str(tmp_path)])
    assert stop.value.code == 2
    printed, said = capsys.readouterr()
    assert not printed
    assert said == f"alexnet: {tmp_path} cannot be written, as it is a folder: choose another path.\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize("verb", VERBS)
def test_standard_output_that_is_not_utf_8(
    verb: str, encoding: str, verbs: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = io.BytesIO()
    stream = io.TextIOWrapper(binary, encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    status: object = 0
    try:
        main(verbs[verb])
    except SystemExit as stop:
        status = stop.code
    assert status in (0, 1, None)
    stream.flush()
    assert len(binary.getvalue().decode(encoding)) > 20
    assert "\\u2" not in binary.getvalue().decode(encoding)  # what we print beyond ASCII has a likeness


def test_characters_that_the_encoding_lacks(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A foreign name stays readable, and a name's bytes stay what they are in a file."""
    names = ["café.png", "猫.png", os.fsdecode(b"caf\xe9.png")]
    for name in names:
        draw((200, 50, 40), 77).save(tmp_path / name)
    written = {}
    for encoding in ("ascii", "latin-1", "utf-8"):
        binary = io.BytesIO()
        stream = io.TextIOWrapper(binary, encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.chdir(tmp_path)
        main(["predict", str(run), *names, "--format", "csv", "--top", "1"])
        stream.flush()
        written[encoding] = [line.partition(b",")[0] for line in binary.getvalue().splitlines()[1:]]
    assert written["ascii"] == [rb"caf\xe9.png", rb"\u732b.png", b"caf\xe9.png"]
    assert written["latin-1"] == [b"caf\xe9.png", rb"\u732b.png", b"caf\xe9.png"]
    assert written["utf-8"] == ["café.png".encode(), "猫.png".encode(), b"caf\xe9.png"]


def test_a_full_pipe_that_does_not_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a parent has set the pipe so, as some do, everything arrives all the same."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    received = []
    slow = threading.Thread(target=lambda: received.extend(iter(lambda: os.read(reader, 1000), b"")))
    with open(writer, "w") as stream:
        while True:
            try:
                os.write(writer, b"x" * 1000)  # until it is full
            except BlockingIOError:
                break
        monkeypatch.setattr(sys, "stdout", stream)
        threading.Timer(0.2, slow.start).start()
        main(["summary", "--format", "json"])
    slow.join(10)
    os.close(reader)
    assert b"".join(received).rstrip().endswith(b"}") and b'"parameters": 60965224' in b"".join(received)


# --- from a shell: what Python itself says as it ends is seen there alone -------------------------


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ("A summary > /dev/full", 2, "alexnet: standard output: No space left on device\n"),
        ("A --help > /dev/full", 2, "alexnet: standard output: No space left on device\n"),
        ("A summary >&-", 2, "alexnet: standard output: closed; redirect it to /dev/null if you do not need it\n"),
        ("A summary 2>&- > /dev/null", 0, ""),
        ("A summary nonsense 2>&-", 2, ""),  # and not on standard output
        ("A summary nonsense 2> /dev/full", 2, ""),
        ("A summary --nonsense 2> /dev/full", 2, ""),
        ("A summary <&- > /dev/null", 0, "Next: alexnet summary paper --explain\n"),
        ("A summary --explain | true", 141, ""),
        ("A weights list | true", 141, ""),
        ("A summary | true", 141, ""),
        ("A | true", 141, ""),
        ("PYTHONUNBUFFERED=1 A summary | true", 141, ""),
        ("PYTHONUNBUFFERED=1 A summary > /dev/full", 2, "alexnet: standard output: No space left on device\n"),
    ],
)
def test_streams_of_a_shell(words: str, status: int, said: str) -> None:
    if "/dev/full" in words and not FULL.exists():
        pytest.skip("this system has no /dev/full")
    ended = shell(words)
    assert (ended.returncode, ended.stderr, ended.stdout) == (status, said, "")


def test_everything_in_the_c_locale() -> None:
    ended = shell("A summary && A weights list && A --help", {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert ended.returncode == 0 and [line[:5] for line in ended.stderr.splitlines()] == ["Next:"] * 2
    assert "724,406,816" in ended.stdout and ended.stdout.isascii()


def test_a_list_on_a_closed_standard_input(run: Path) -> None:
    ended = shell(f"A predict {run / 'latest.safetensors'} - <&-")
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "standard input is closed" in ended.stderr


# --- what is the user's to mend -------------------------------------------------------------------


class OutOfMemoryError(RuntimeError):
    """As torch.cuda's."""


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (MemoryError(), 2, "out of memory: end other programs"),
        (MemoryError("Unable to allocate 9.9 TiB"), 2, "(Unable to allocate 9.9 TiB)"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"), 2, "out of memory"),
        (OutOfMemoryError("CUDA out of memory"), 2, "the GPU is out of memory"),
        (RuntimeError("can't start new thread"), 2, "limit on threads is reached"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "No space left on device: make room"),
        (OSError(errno.EMFILE, "Too many open files"), 2, "ulimit -n"),
        (PermissionError(errno.EACCES, "Permission denied"), 2, "Permission denied: change"),
        (PermissionError(errno.EACCES, "Permission denied", "a\x1b[2J.png"), 2, "a\\x1b[2J.png: Permission denied"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 141, ""),
    ],
)
def test_one_line_for_what_the_user_can_mend(
    error: BaseException, status: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("alexnet.summary.table", raiser(error))
    with pytest.raises(SystemExit) as stop:
        main(["summary"])
    assert stop.value.code == status
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == (1 if words else 0)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("shapes"), OSError("no number"), OSError(errno.EBADF, "Bad file descriptor"), RecursionError(), KeyError()],
)
def test_our_own_mistakes_keep_their_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    assert failures.explain(error) is None
    monkeypatch.setattr("alexnet.summary.table", raiser(error))
    with pytest.raises(type(error)):
        main(["summary"])


def raiser(error: BaseException) -> Callable[..., None]:
    """A function that only fails."""

    def fail(*_: object) -> None:
        raise error

    return fail


# --- files that are full, cut or no files ---------------------------------------------------------

WRITING = {
    "sheet.png": ("predict", "RUN", "PICTURE", "--sheet"),
    "sheet.svg": ("predict", "RUN", "PICTURE", "--sheet"),
    "sheet.pdf": ("predict", "RUN", "PICTURE", "--sheet"),
    "report.html": ("report", "RUN", "--data", "STORE", "--out"),
    "result.json": ("evaluate", "RUN", "--data", "STORE", "--json"),
    "diagnosis.json": ("doctor", "laptop", "--data", "STORE", *FAST, "--json"),
    "filters.png": ("filters", "RUN", "--out"),
    "imported.safetensors": ("weights", "import", "RUN", "-o"),
    "exported.safetensors": ("export", "RUN", "--to", "safetensors", "-o"),
}


@pytest.fixture
def words(run: Path, store: Store, tmp_path: Path) -> Callable[[str], list[str]]:
    """The command line that writes a file of this name."""
    draw((200, 50, 40), 77).save(tmp_path / "x.png")
    places = {"RUN": str(run), "STORE": str(store.folder), "PICTURE": str(tmp_path / "x.png")}
    return lambda name: [*(places.get(word, word) for word in WRITING[name]), str(tmp_path / "out" / name)]


@pytest.mark.parametrize("name", WRITING)
def test_a_full_disk_under_a_file(
    name: str, words: Callable[[str], list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line that names the file, status 2, and no half of it; the file that was there stays."""
    resource = pytest.importorskip("resource")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("what was there")
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, unlimited[1]))  # bytes in a file, more are as on a full disk
    try:
        with pytest.raises(SystemExit) as stop:
            main(words(name))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert stop.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("alexnet: ") and str(tmp_path / "out" / name) in last
    assert [(path.name, path.read_text()) for path in (tmp_path / "out").iterdir()] == [(name, "what was there")]


@pytest.mark.parametrize("name", WRITING)
def test_a_pipe_in_the_place_of_a_file(
    name: str, words: Callable[[str], list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is not replaced; an administrator would lose a device by that."""
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out" / name)
    with pytest.raises(SystemExit) as stop:
        main(words(name))
    assert stop.value.code == 2 and "a pipe or a device" in capsys.readouterr().err.splitlines()[-1]
    assert (tmp_path / "out" / name).is_fifo()


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "PIPE", "--data", "STORE"),
        ("predict", "PIPE", "x.jpg"),
        ("export", "PIPE", "--to", "onnx", "-o", "y.onnx"),
        ("report", "PIPE", "--data", "STORE"),
        ("filters", "PIPE", "--out", "y.png"),
        ("weights", "verify", "PIPE"),
        ("weights", "import", "PIPE"),
        ("weights", "import", "RUN", "--mean", "PIPE"),
        ("weights", "import", "RUN", "--classes", "PIPE"),
        ("compare", "paper", "caffe", "--weights", "RUN", "--image", "PIPE"),
        ("prepare", "PIPE", "out"),
        ("verify", "PIPE"),
        ("train", "laptop", "--data", "PIPE", "--out", "out"),
    ],
    ids=" ".join,
)
def test_pipes_are_not_waited_for(
    command: tuple[str, ...],
    run: Path,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("PIPE")
    places = {"RUN": str(run), "STORE": str(store.folder)}
    with pytest.raises(SystemExit) as stop:
        main([places.get(word, word) for word in command])
    assert stop.value.code == 2
    assert "PIPE" in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["PIPE"]


@pytest.mark.parametrize("engine", ["torch", "openvino", "onnxruntime"])
def test_weights_that_are_cut_while_they_are_used(engine: Engine, run: Path, tmp_path: Path) -> None:
    """A cut file that is still mapped would end the process without a word."""
    if engine != "torch":
        pytest.importorskip(engine)
    draw((200, 50, 40), 77).save(tmp_path / "x.png")
    shutil.copy(run / "latest.safetensors", tmp_path / "cut.safetensors")
    used = [engines.load(tmp_path / "cut.safetensors", engine)]
    ending = {"torch": None, "openvino": ".xml", "onnxruntime": ".onnx"}[engine]
    if ending:
        main(["export", str(run), "--to", "openvino" if ending == ".xml" else "onnx", "-o", str(tmp_path / f"cut{ending}")])
        used.append(engines.load(tmp_path / f"cut{ending}", engine))
    for path in tmp_path.glob("cut.*"):
        os.truncate(path, 0)
    for classifier in used:
        assert next(predict(classifier, [tmp_path / "x.png"])).top[0][0] == "red"
