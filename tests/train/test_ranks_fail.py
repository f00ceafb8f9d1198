"""What goes wrong on one of several ranks: it is killed, hangs, differs, has no memory or disk.

All under torchrun's own agent (`launcher.py`), with two to four processes.
"""

import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from launcher import Launched, Launcher
from runs import OPTIONS, log, same_weights

from alexnet.cli import dispatch, main
from alexnet.data.prepare import prepare
from alexnet.data.store import Store
from alexnet.errors import UsageError
from alexnet.evaluate import evaluate
from alexnet.train.parallel.launch import read_launch
from alexnet.train.result import read_result
from alexnet.weights import native
from conftest import write_photos


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    started = Launcher(tmp_path_factory.mktemp("launches"))
    yield started
    started.close()


def training(store: Store, run: Path, *more: str, epochs: int = 2) -> list[object]:
    return ["train", "laptop", "--data", store.folder, "--out", run, *OPTIONS, f"--epochs={epochs}", "--parallel=data", *more]


def in_rank(rank: int, program: str) -> str:
    return f"import os, sys, signal, time\nif rank == {rank}:\n" + "".join(f"    {line}\n" for line in program.splitlines())


#: Runs something in a rank after each of its steps, with their number.
AFTER_STEP = """
from alexnet.train.optim import SGD
step, steps = SGD.step, []
def counted(*arguments):
    step(*arguments)
    steps.append(len(steps) + 1)
    after(steps[-1])
SGD.step = counted
"""

# --- one error, reported by rank 0 ----------------------------------------------------------------

WRONG_SOURCE = "import alexnet.train.parallel.meet as meet\nmeet.source_hash = lambda: 'abc'"
NO_MEMORY = "import torch\ndef after(number): torch.empty(2**50)\n" + AFTER_STEP
STOPS = "def after(number): os.kill(os.getpid(), signal.SIGSTOP)\n" + AFTER_STEP
#: What goes wrong: ranks, what they do, and what rank 0 says of it.
WRONG: dict[str, tuple[int, str, str]] = {
    "version": (
        2,
        in_rank(1, "import alexnet\nalexnet.__version__ = '9'"),
        r"rank 1 of 2 differs from rank 0 \(alexnet 9, at rank 0 0\.",
    ),
    "source": (
        4,
        in_rank(2, WRONG_SOURCE),
        r"rank 2 of 4 differs .*source code abc, at rank 0 [0-9a-f]{12}\): install the same",
    ),
    "torch": (2, in_rank(1, "import torch\ntorch.__version__ = '9'"), r"rank 1 of 2 differs from rank 0 \(torch 9, at rank 0 "),
    "recipe": (
        2,
        in_rank(1, "sys.argv.append('--lr=0.5')"),
        r"rank 1 of 2 differs .*\(lr 0.5, at rank 0 0.02\): give all ranks the same",
    ),
    "store": (
        3,
        in_rank(2, "sys.argv.append('--data=OTHER')"),
        r"rank 2 of 3 differs from rank 0 \(the store \w{16}, at rank 0 ",
    ),
    "no store": (2, in_rank(1, "sys.argv.append('--data=/nowhere')"), "rank 1 of 2: /nowhere is not a store"),
    "count": (2, in_rank(1, "os.environ['WORLD_SIZE'] = '3'"), r"rank 1 of 2 differs from rank 0 \(processes 3, at rank 0 2\)"),
    "RANK": (2, "import os\nos.environ['RANK'] = 'x'", r"RANK \(=x\) must be a whole number from 0 to 1: leave it to torchrun"),
    "timeout": (
        2,
        "import sys\nsys.argv.append('--rank-timeout=0.001')",
        r"rank_timeout \(=0.001\) must be at least 3 seconds, and",
    ),
    "late": (
        2,
        "import sys, time\nsys.argv.append('--width=0.1')\nif rank == 0: time.sleep(1)",
        r"width \(=0.1\) gives conv1 9.6",
    ),
    "alone": (2, in_rank(1, "sys.argv.append('--width=0.1')"), r"width \(=0.1\) gives conv1 9.6"),
    "memory": (
        3,
        in_rank(2, NO_MEMORY),
        r"rank 2 of 3: batch_size \(=9\) and the network do not fit into this machine's memory",
    ),
    "disk": (
        2,
        in_rank(0, "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))"),
        r"best.safetensors could not be written .*File too large.*Check that the folder",
    ),
    "killed": (
        3,
        in_rank(2, "def after(number): os.kill(os.getpid(), 9)\n" + AFTER_STEP),
        "rank 2 of 3 ended without an error: it was killed",
    ),
    "hanging": (3, in_rank(2, STOPS), r"rank 2 of 3 did not answer for 15 seconds \(--rank-timeout\): it hangs"),
    "rank 0 hanging": (3, in_rank(0, STOPS), r"rank 0 of 3 did not answer for 15 seconds \(--rank-timeout\): it hangs"),
}


@pytest.fixture(scope="module")
def wrong(launcher: Launcher, store: Store, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Launched]:
    """All at once, as each waits more than it computes."""
    folder = tmp_path_factory.mktemp("wrong")
    other = prepare([write_photos(folder / "photos", 4)], folder / "other", size=72, hold_out=0.25)
    started = {}
    for name, (ranks, hook, _) in WRONG.items():
        more = ["--rank-timeout=15"] if "hanging" in name else []
        hook = hook.replace("OTHER", str(other.folder))
        started[name] = launcher.start(ranks, *training(store, folder / name, *more), hook=hook)
    return started


@pytest.mark.parametrize("name", WRONG)
def test_one_error(wrong: dict[str, Launched], name: str) -> None:
    ended = wrong[name].wait()
    assert ended.status == 1 and not ended.left()
    assert [bool(re.search(WRONG[name][2], line)) for line in ended.lines] == [True], ended.text()
    assert "Traceback" not in ended.text() and "with the following error" not in ended.said.read_text()


ENVIRONMENT = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "h",
    "MASTER_PORT": "9",
}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("WORLD_SIZE", "0", r"WORLD_SIZE \(=0\) must be a whole number at least 1: leave it to torchrun"),
        ("WORLD_SIZE", "two", r"WORLD_SIZE \(=two\) must be"),
        ("RANK", "2", r"RANK \(=2\) must be a whole number from 0 to 1: "),
        ("RANK", "-1", r"RANK \(=-1\) must be"),
        ("LOCAL_RANK", "2", r"LOCAL_RANK \(=2\) must be a whole number from 0 to 1: "),
        ("MASTER_PORT", "70000", r"MASTER_PORT \(=70000\) must be a whole number from 0 to 65535: "),
        ("MASTER_ADDR", "", "MASTER_ADDR is not set, but RANK and WORLD_SIZE are: start with `torchrun"),
    ],
)
def test_a_wrong_environment(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    for variable, right in ENVIRONMENT.items():
        monkeypatch.setenv(variable, right)
    assert read_launch().address == "h:9"
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=said):
        read_launch()


def test_a_repeated_run_needs_a_name(monkeypatch: pytest.MonkeyPatch, run: Path) -> None:
    """Each rank would find another free one, and so would each start."""
    for variable, right in ENVIRONMENT.items():
        monkeypatch.setenv(variable, right)
    with pytest.raises(UsageError, match="--config under torchrun needs the folder .*: add --out"):
        dispatch.run(["train", "--config", str(run)])


def test_other_commands_are_not_silent(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In a shell where RANK and WORLD_SIZE are left over, or Slurm's."""
    for variable, right in ENVIRONMENT.items():
        monkeypatch.setenv(variable, right)
    main(["summary", "paper"])
    with pytest.raises(SystemExit):
        main(["verify", "/nowhere"])
    said = capsys.readouterr()
    assert "60,965,224" in said.out and "alexnet: /nowhere is not a store" in said.err


def test_an_option_that_cannot_be_read(launcher: Launcher, store: Store, tmp_path: Path) -> None:
    """The parser of the command line prints by itself; one rank's is enough."""
    ended = launcher.run(2, *training(store, tmp_path / "run", "--rank-timeout=abc"))
    assert ended.status == 1 and ended.text().count("could not convert string to float: 'abc'") == 1, ended.text()


def test_a_port_in_use(launcher: Launcher, store: Store, tmp_path: Path) -> None:
    """Where nobody but rank 0 can offer the key-value store, as without torchrun."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        hook = f"import os\nos.environ |= {{'TORCHELASTIC_USE_AGENT_STORE': 'False', 'MASTER_PORT': '{port}'}}"
        ended = launcher.run(2, *training(store, tmp_path / "run", "--rank-timeout=3"), hook=hook)
    assert [line[:40] for line in ended.lines] == [f"alexnet: MASTER_PORT (={port}) is in use on"[:40]], ended.text()


def test_commands_of_one_process(launcher: Launcher) -> None:
    started = {verb: launcher.start(2, verb, "one") for verb in ("fit", "ablate", "demo")}
    for verb, launched in started.items():
        said = f"alexnet: `alexnet {verb}` runs in one process, but torchrun starts several: run it without torchrun."
        assert launched.wait().lines == [said] and launched.status == 1


# --- stopped on purpose ---------------------------------------------------------------------------


def test_torchrun_is_asked_to_stop(launcher: Launcher, store: Store, tmp_path: Path) -> None:
    """By Ctrl-C, or by SIGTERM as from a batch system: the run is saved, once, and all end."""
    asked = {number: training(store, tmp_path / number.name, epochs=500) for number in (signal.SIGINT, signal.SIGTERM)}
    started = {number: launcher.start(2, *words) for number, words in asked.items()}
    for number, launched in started.items():
        launched.wait_for("500 epochs of 6 steps")
        os.kill(launched.pid, number)
    for number, launched in started.items():
        launched.wait()
        assert launched.status and not launched.left()
        stopped = r"alexnet: stopped at epoch \S+ and saved\. To continue, run the same command with --resume\."
        assert [bool(re.fullmatch(stopped, line)) for line in launched.lines] == [True], launched.text()
        state = native.load(tmp_path / number.name).state
        assert 6 * state["epoch"] + state["step"] > 0


# --- killed, and started again --------------------------------------------------------------------

#: What happens in each of six starts.
KILLS = """
import os, random, threading
chance = random.Random(attempt + 10 * SEED)
def kill(): os.kill(os.getpid(), 9)
if attempt == 0 and rank == 1:  # before the first checkpoint
    def after(number):
        if number == 3: kill()
if attempt == 1 and rank == 0:  # one of the two files of a checkpoint is written
    from alexnet.weights import native
    save = native.save
    def dying(path, trained):
        if path.name == "latest.safetensors" and trained.state["epoch"] == 2: kill()
        save(path, trained)
    native.save = dying
if attempt in (2, 3) and rank == chance.choice([0, 1]):  # after an epoch and some steps
    last = 6 + chance.randrange(6)
    def after(number):
        if number == last: kill()
if attempt == 4 and rank == chance.choice([0, 1]):  # at any moment, also before or after the steps
    threading.Timer(chance.uniform(0, 1.5), kill).start()
if "after" in globals():
""" + "".join(f"    {line}\n" for line in AFTER_STEP.splitlines())


@pytest.fixture(scope="module")
def quiet(launcher: Launcher, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Left alone."""
    folder = tmp_path_factory.mktemp("quiet") / "run"
    assert launcher.run(2, *training(store, folder, epochs=6)).status == 0
    return folder


def assert_equal(run: Path, quiet: Path) -> None:
    for name in ("latest.safetensors", "best.safetensors"):
        assert same_weights(run / name, quiet / name)
    assert log(run) == log(quiet)
    assert read_result(run)["evaluation"] == read_result(quiet)["evaluation"]


def test_killed_and_started_again(launcher: Launcher, store: Store, quiet: Path, tmp_path: Path) -> None:
    """torchrun starts all ranks again, five times. They go on by themselves, and end with the bits
    of a run left alone; `--overwrite` is for the first start.
    """
    run = tmp_path / "run"
    words = training(store, run, "--overwrite", epochs=6)
    ended = launcher.run(2, *words, options=("--max-restarts=5",), hook=KILLS.replace("SEED", str(time.time_ns())))
    assert ended.status == 0, ended.text()
    assert ended.text().count("torchrun started its processes again: continuing the run in") in (4, 5)
    told = r"alexnet: rank 1 of 2 ended without an error: .* torchrun starts all ranks again\."
    assert re.search(told, ended.text()), ended.text()  # of the first start
    assert_equal(run, quiet)


def test_killed_on_another_machine(launcher: Launcher, store: Store, quiet: Path, tmp_path: Path) -> None:
    """The torchrun of a machine that is well starts its ranks again, and does not count it as a
    restart: they go on all the same, where `--overwrite` could delete the run.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = f"--nnodes=2 --rdzv-backend=c10d --rdzv-endpoint=127.0.0.1:{port} --rdzv-id=two"
    kill = f"""
def after(number):
    if number == 9 and not os.path.exists({str(tmp_path / "killed")!r}):
        open({str(tmp_path / "killed")!r}, "w")
        os.kill(os.getpid(), 9)
"""
    words = training(store, tmp_path / "run", "--overwrite", epochs=6)
    hook = (
        in_rank(1, kill + AFTER_STEP)
        + "import torch\nfrom alexnet.devices import cores\ntorch.set_num_threads(max(1, cores() // 2))"
    )
    machines = [launcher.start(1, *words, options=("--max-restarts=1",), meeting=meeting, hook=hook) for _ in range(2)]
    said = "".join(machine.wait().text() for machine in machines)
    assert [machine.status for machine in machines] == [0, 0], said
    assert said.count("continuing the run in") == 1 and "already holds" not in said
    assert_equal(tmp_path / "run", quiet)


def test_another_run_is_not_gone_on_with(launcher: Launcher, store: Store, tmp_path: Path) -> None:
    """A second start resumes what the first one began, and nothing else."""
    run = tmp_path / "run"
    launcher.run(1, *training(store, run, epochs=1))
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    ended = launcher.run(2, *training(store, run, epochs=2), options=("--max-restarts=1",))
    assert [line.startswith(f"alexnet: {run} already holds a run: continue it with --resume") for line in ended.lines] == [
        True
    ] * 2
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


# --- other numbers of ranks -----------------------------------------------------------------------

#: Notes which pictures a rank trains on, and what they look like after crop and mirror; then stops.
SEEN = (
    """
import hashlib, json, os, signal
from alexnet import evaluate
from alexnet.data.augment import Augmentation
from alexnet.train import session
from alexnet.train.steps import ranked
evaluate.BATCH_SIZE = ranked.BATCH_SIZE = 4
call, file = Augmentation.__call__, open(f"FOLDER/{os.getpid()}.jsonl", "w", buffering=1)
def noted(self, records, pictures, chance):
    images = call(self, records, pictures, chance)
    for picture, image in zip(pictures.tolist(), images):
        file.write(json.dumps([chance.epoch, picture, hashlib.sha1(image.numpy().tobytes()).hexdigest()]) + "\\n")
    return images
Augmentation.__call__ = noted
def after(number):
    if number == LAST and rank == 0: os.kill(os.getpid(), signal.SIGINT)
"""
    + AFTER_STEP
)


def seen(folder: Path) -> list[Any]:
    return sorted(json.loads(line) for file in folder.glob("*.jsonl") for line in file.read_text().splitlines())


def test_other_numbers_of_ranks(launcher: Launcher, store: Store, tmp_path: Path) -> None:
    """4 ranks, then 2, 1 and 4: each picture of each epoch once, cropped as in one process. The
    evaluation, shared by ranks in batches of four, counts as one process does.
    """
    folders = [tmp_path / name for name in ("alone", "parts")]
    for folder in folders:
        folder.mkdir()
    hooks = [SEEN.replace("FOLDER", str(folder)) for folder in folders]
    launcher.run(1, *training(store, tmp_path / "one", epochs=3), hook=hooks[0].replace("LAST", "0"))
    run = tmp_path / "run"
    for count, steps in ((4, 4), (2, 5), (1, 2), (4, 0)):
        more = ["--resume"] if run.exists() else []
        ended = launcher.run(count, *training(store, run, *more, epochs=3), hook=hooks[1].replace("LAST", str(steps)))
        assert (ended.status == 0) == (steps == 0), ended.text()
        if steps:
            assert [
                bool(re.fullmatch(r"alexnet: stopped at epoch \S+ and saved\. To continue.*", line)) for line in ended.lines
            ] == [True]
    assert len(seen(folders[0])) == 3 * 54 and seen(folders[1]) == seen(folders[0])
    trained = native.load(run)
    assert [one.get("ranks", 1) for one in trained.state["environments"]] == [4, 2, 1, 4]
    assert ended.text().count("ranks 1, now 4") == 1
    assert (run / "latest.safetensors").stat().st_size == pytest.approx(
        (tmp_path / "one/latest.safetensors").stat().st_size, abs=2000
    )
    alone = evaluate(trained.model, trained.preprocessing, store.held_out, store.classes)
    counts = read_result(run)["evaluation"]
    assert (counts["images"], counts["top1_wrong"]) == (alone.images, alone.wrong)
