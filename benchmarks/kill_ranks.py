"""Are ranks that are killed continued by torchrun to the same bits?

    python benchmarks/kill_ranks.py                      # 20 times, two ranks
    python benchmarks/kill_ranks.py --times 5 --processes 4 --scheme hybrid

A small network is trained on drawn pictures by `torchrun --max-restarts 1`: once left alone, then
so many times with one rank killed by SIGKILL. Every fourth time rank 0 is killed between the two
files of a checkpoint, the best network written and the latest not; otherwise any rank at a moment
drawn from the whole life of its process; where the run ended before, it is drawn again. torchrun
starts all ranks again with the same command. A run is equal if the weights, the velocity, the
errors of all epochs and the last evaluation are, to the bit.

The last line is one JSON object: how many of how many are equal, and each kill.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SETTINGS = "--width 0.125 --epochs 8 --batch-size 9 --lr 0.02 --dropout 0.5 --crop --mirror --compile off --device cpu"
#: For a rank: which one is to be killed in the first start, and when; "between" or seconds.
KILL = "KILL_RANKS"


def main() -> None:
    """Print a line for each time, and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--scheme", default="data")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(asked, Path(folder))
    print(json.dumps(result))
    sys.exit(0 if result["equal"] == result["times"] else 1)


def measure(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All runs, compared with the one left alone."""
    chance = random.Random(asked.seed)
    store = prepared(folder)
    train(asked, store, folder / "alone", "")
    seconds = float((folder / "alone.seconds").read_text())
    expected, rows, late = outcome(folder / "alone"), list[dict[str, Any]](), 0
    while len(rows) < asked.times:
        rank, moment = chance.randrange(asked.processes), f"{chance.uniform(0, seconds):.2f}"
        kill = "0 between" if len(rows) % 4 == 3 else f"{rank} {moment}"
        run = folder / f"run{len(rows) + late}"
        said = train(asked, store, run, kill)
        row = {"rank, moment": kill, "continued": "continuing the run" in said, "equal": outcome(run) == expected}
        if run.with_name(f"{run.name}.killed").exists():
            rows.append(row)
        else:
            late += 1
        print(row, flush=True)
    count = {name: sum(row[name] for row in rows) for name in ("continued", "equal")}
    how = {"processes": asked.processes, "scheme": asked.scheme, "seconds": seconds}
    return {"times": asked.times, **count, "ended before the kill": late, **how, "rows": rows}


def prepared(folder: Path) -> Path:
    """A store of 78 pictures of noise in three colours."""
    from alexnet.data.prepare import prepare

    noise = np.random.default_rng(0)
    for split, count in (("train", 20), ("val", 6)):
        for name in range(3):
            (folder / "photos" / split / str(name)).mkdir(parents=True)
            for number in range(count):
                pixels = noise.normal(90 + 40 * np.eye(3)[name], 25, (72, 72, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / "photos" / split / str(name) / f"{number}.png")
    return prepare([folder / "photos"], folder / "store", size=72).folder


def train(asked: argparse.Namespace, store: Path, run: Path, kill: str) -> str:
    """One run by torchrun; what it printed."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={asked.processes}", "--max-restarts=1"]
    words = ["train", "laptop", "--data", str(store), "--out", str(run), "--parallel", asked.scheme, *SETTINGS.split()]
    done = subprocess.run(
        [sys.executable, *torchrun, __file__, *words], capture_output=True, text=True, env={**os.environ, KILL: kill}
    )
    if done.returncode:
        print(done.stderr, file=sys.stderr)
    return done.stdout + done.stderr


def outcome(run: Path) -> dict[str, Any]:
    """What has to be equal of a run; empty if it did not end."""
    from safetensors import safe_open

    from alexnet.run_folder import LATEST, RESULT, read_log
    from alexnet.train.result import read_result

    if not (run / RESULT).exists():
        return {}
    with safe_open(run / LATEST, framework="np") as file:
        tensors = {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118 - not a dict
    errors = [line for line in read_log(run) if line["kind"] == "val"]
    return {**tensors, "errors": errors, "evaluation": read_result(run)["evaluation"]}


def rank() -> None:
    """What torchrun starts: the command line, and its end if this rank is the one to be killed."""
    from alexnet.cli import main as command
    from alexnet.weights import native

    which, _, when = os.environ[KILL].partition(" ")
    out = Path(sys.argv[sys.argv.index("--out") + 1])

    def kill() -> None:
        out.with_name(f"{out.name}.killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)

    save = native.save

    def dying(path: Path, trained: Any) -> None:
        if path.name == "latest.safetensors" and trained.state["epoch"] == 1:
            kill()
        save(path, trained)

    if which == os.environ["RANK"] and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        if when == "between":
            native.save = dying
        else:
            clock = threading.Timer(float(when), kill)
            clock.daemon = True
            clock.start()
    begun = time.monotonic()
    command(sys.argv[1:])
    out.with_name(f"{out.name}.seconds").write_text(f"{time.monotonic() - begun:.2f}")


if __name__ == "__main__":
    rank() if "RANK" in os.environ else main()
