"""torchrun in tests, without the three seconds that each process needs to import PyTorch.

`Launcher` starts this file once as a process that has imported everything. For each launch it forks
one that is torchrun, with options of torchrun's own by which it forks its ranks, too.
"""

import json
import os
import re
import subprocess
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from select import select
from typing import Any

#: Seconds without news after which a launch hangs: less than a test may take.
HANGS = 240


@dataclass
class Launched:
    """A launch that is under way, or has ended."""

    pid: int
    said: Path
    launcher: "Launcher"
    status: int | None = None

    def text(self) -> str:
        """All that the ranks have printed: without torchrun's log and its own last traceback."""
        text = re.sub(r"^[IWE]\d{4} .*\n", "", self.said.read_text(errors="replace"), flags=re.MULTILINE)
        report = text.find("ChildFailedError")
        return text if report < 0 else text[: max(0, text.rfind("Traceback (most recent call last)", 0, report))]

    def wait_for(self, text: str, seconds: float = 120) -> None:
        """Until something was printed."""
        until = time.monotonic() + seconds
        while text not in self.text():
            assert time.monotonic() < until, self.text()
            time.sleep(0.02)

    def wait(self) -> "Launched":
        """Until torchrun has ended."""
        while self.status is None:
            self.launcher.hear()
        return self

    def left(self) -> bool:
        """Whether any of its processes is still there."""
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    @property
    def lines(self) -> list[str]:
        """What alexnet said, without progress and PyTorch's warnings."""
        return [line for line in self.text().splitlines() if line.startswith("alexnet: ")]


class Launcher:
    """Starts torchruns, one or several at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.launches = folder, list[Launched]()
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, cwd=Path(__file__).parent
        )

    def start(
        self, processes: int, *words: object, hook: str = "", options: tuple[object, ...] = (), meeting: str = "--standalone"
    ) -> Launched:
        """As `torchrun MEETING --nproc-per-node PROCESSES OPTIONS -m alexnet WORDS`.

        Args:
            hook: a program that each rank runs first; it knows `rank` and `attempt`.
            options: of torchrun.
            meeting: its options by which several torchruns find each other.
        """
        assert self.process.stdin
        said = self.folder / f"{len(self.launches)}.txt"
        torchrun = [*meeting.split(), f"--nproc-per-node={processes}", *map(str, options)]
        self.process.stdin.write(json.dumps([torchrun, list(map(str, words)), hook, str(said)]).encode() + b"\n")
        launched = Launched(0, said, self)
        self.launches.append(launched)
        while not launched.pid:
            self.hear()
        return launched

    def run(self, *arguments: Any, **options: Any) -> Launched:
        """`start`, to its end."""
        return self.start(*arguments, **options).wait()

    def hear(self) -> None:
        """Take a line of news: a launch has begun, or has ended."""
        assert self.process.stdout
        under_way = [one for one in self.launches if one.status is None]
        assert select([self.process.stdout], [], [], HANGS)[0], "\n".join(one.text() for one in under_way)
        pid, status = json.loads(self.process.stdout.readline())
        if status is None:
            next(one for one in self.launches if not one.pid).pid = pid
        else:
            next(one for one in self.launches if one.pid == pid).status = status

    def close(self) -> None:
        """End it, once all launches have ended."""
        self.process.communicate(timeout=60)


# --- in the processes of their own ----------------------------------------------------------------


def serve() -> None:
    """Fork a torchrun for each line of standard input; say when one begins and ends."""
    import torch.distributed.run  # noqa: F401

    import alexnet.train.loop  # noqa: F401

    heard, running = sys.stdin.buffer.raw, set[int]()  # type: ignore[attr-defined]
    while line := heard.readline() if not running or select([heard], [], [], 0.01)[0] else b" ":
        if line != b" ":
            pid = os.fork()
            if not pid:
                _torchrun(*json.loads(line))
            running.add(pid)
            _report(pid, None)
        ended, status = os.waitpid(-1, os.WNOHANG) if running else (0, 0)
        if ended:
            running.discard(ended)
            _report(ended, os.waitstatus_to_exitcode(status))


def _report(pid: int, status: int | None) -> None:
    os.write(1, (json.dumps([pid, status]) + "\n").encode())


def _torchrun(options: list[str], words: list[str], hook: str, said: str) -> None:
    """What the console script torchrun does; ends the process."""
    from torch.distributed.elastic.multiprocessing.api import MultiprocessContext
    from torch.distributed.run import main
    from torch.multiprocessing import ProcessContext

    os.setsid()
    start, joined = MultiprocessContext._start, ProcessContext._join_procs_with_timeout
    MultiprocessContext._start = lambda self: start(_unwaited(self))
    ProcessContext._join_procs_with_timeout = lambda self, seconds: joined(self, min(seconds, 6))  # of torchrun's 30
    os.environ["HOOK"] = hook
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(file, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    status = 0
    try:
        main([*options, "--start-method=fork", "--run-path", __file__, *words])
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _unwaited(context: Any) -> Any:
    """The context of forked ranks that end without waiting for each other, as those that torchrun
    starts as programs do. It lets forked ones wait, and waits forever for one that is killed then.
    """
    context._worker_finished_event = threading.Event()
    context._worker_finished_event.set()
    return context


def rank() -> None:
    """What a rank runs: the command line."""
    from alexnet.cli import main

    exec(os.environ["HOOK"], {"rank": int(os.environ["RANK"]), "attempt": int(os.environ["TORCHELASTIC_RESTART_COUNT"])})
    main(sys.argv[1:])


if __name__ == "__main__":
    rank() if "RANK" in os.environ else serve()
