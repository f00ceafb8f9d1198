"""Training by several processes: images/s and bytes, measured, beside the model of scaling.py.

    python benchmarks/train_ranks.py                                 # 2 ranks against one process
    python benchmarks/train_ranks.py --width 0.5 --input-size 64 --batch 64 --steps 10
    python benchmarks/train_ranks.py --ranks 4 --scheme data hybrid  # on GPUs if there are four

One process takes the whole batch: on a CPU with as many threads as there are ranks, as one lane
and as so many lanes. Against it stand as many ranks, which share the same batch, with one thread
each. On GPUs each has its own. All are processes that take their blocks of steps in turns, on the
same noise, update included.

What the ranks give to `torch.distributed` in a step is counted and compared with
`alexnet.traffic`, and so is what goes over the machine's loopback meanwhile. Their connection is
measured first, by sums of 4 bytes and 64 MB. Predicted is one process's time plus that of the
exchanges at these rates: all of it, as where the cores are busy with arithmetic, and only what
cannot be hidden behind arithmetic. The last line is one JSON object.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scaling import Device, Interconnect, exchange_seconds, step_seconds
from train_cpu import variant_of

from alexnet.bench import BATCHES, LR, STORED, Steps, noise, preprocessing_of
from alexnet.data.augment import Augmentation
from alexnet.devices import pick_device, pick_precision, set_precision
from alexnet.run_folder import environment
from alexnet.traffic import SCHEMES, Traffic, count
from alexnet.train.parallel.ranks import Ranks, open_ranks
from alexnet.train.recipes import Recipe
from alexnet.train.start import Start
from alexnet.train.steps.choose import open_step

SMALL, LARGE = 1, 2**24  # numbers of float32 in the sums that measure the connection
SUMS = 5


# --- a rank ---------------------------------------------------------------------------------------


#: Functions of torch.distributed: what they do, and which argument holds the whole tensor, or a
#: list of its parts. The newest PyTorch has other names for some.
COLLECTIVES = {
    "all_reduce": ("all_reduce", 0),
    "all_gather": ("all_gather", 0),
    "all_gather_into_tensor": ("all_gather", 0),
    "all_gather_single": ("all_gather", 0),
    "reduce_scatter": ("reduce_scatter", 1),
    "reduce_scatter_tensor": ("reduce_scatter", 1),
    "reduce_scatter_single": ("reduce_scatter", 1),
}


class Observed:
    """The collectives of torch.distributed, each noted as (name, ranks, bytes of the whole)."""

    def __init__(self) -> None:
        import torch.distributed as dist

        self.seen: Counter[tuple[str, int, int]] = Counter()
        for name, (what, place) in COLLECTIVES.items():
            if hasattr(dist, name):
                setattr(dist, name, self._noting(getattr(dist, name), what, place))

    def during(self, run: Callable[[], object], ranks: Ranks) -> dict[str, Any]:
        """What is seen while something runs, as [name, ranks, bytes, how often], and the bytes that
        all ranks sent to each other on this machine meanwhile.
        """
        ranks.barrier()
        before = loopback_bytes()
        self.seen.clear()
        run()
        seen = [[*key, times] for key, times in self.seen.items()]
        ranks.barrier()
        return {"seen": seen, "sent": loopback_bytes() - before}

    def _noting(self, function: Callable[..., Any], name: str, place: int) -> Callable[..., Any]:
        import torch.distributed as dist

        def noting(*args: Any, **kwargs: Any) -> Any:
            whole = args[place]
            size = whole.nbytes if isinstance(whole, torch.Tensor) else sum(part.nbytes for part in whole)
            self.seen[name, dist.get_world_size(kwargs.get("group")), size] += 1
            return function(*args, **kwargs)

        return noting


def predicted(traffic: Traffic) -> Counter[tuple[str, int, int]]:
    """What `Observed` should see in one step."""
    return Counter((one.collective, one.group, one.payload) for one in traffic.exchanges)


def work(name: str, arguments: argparse.Namespace) -> None:
    """Be a contestant, or one rank of it. Rank 0 writes what its first steps show, then reads
    numbers of steps and writes seconds.
    """
    schemes, _, lanes = name.partition(" ")
    with open_ranks(None if schemes == "one" else "data") as ranks:
        if not ranks.several:
            torch.set_num_threads(arguments.ranks)
        connection = [sum_seconds(ranks, numbers) for numbers in (SMALL, LARGE)] if ranks.several else []
        observed, found = Observed() if ranks.several else None, {}
        for scheme in schemes.split("+"):
            step = steps_of(arguments, replace(ranks, wanted=scheme), int(lanes or 1))  # type: ignore[arg-type]
            step()
            found[scheme] = {"connection": connection, **observed.during(step, ranks)} if observed else {}
        if ranks.first:
            print(json.dumps(found), flush=True)
        while number := ranks.broadcast_object(int(sys.stdin.readline() or 0) if ranks.first else 0):
            begun = time.perf_counter()
            for _ in range(number):
                step()
            settle()
            if ranks.first:
                print(time.perf_counter() - begun, flush=True)


def loopback_bytes() -> int:
    """Sent over this machine's loopback so far, by anybody; 0 where Linux does not say."""
    try:
        with open("/proc/net/dev") as file:
            return next(int(line.split(":")[1].split()[8]) for line in file if line.strip().startswith("lo:"))
    except (OSError, StopIteration):
        return 0


def steps_of(arguments: argparse.Namespace, ranks: Ranks, lanes: int) -> Steps:
    """The steps that `alexnet train` would take."""
    variant, device = variant_of(arguments), pick_device("auto")
    precision = pick_precision("auto", device, False)
    set_precision(precision, device)
    split = noise(max(STORED, variant.input_size), BATCHES * arguments.batch, variant.num_classes)
    augmentation = Augmentation(preprocessing_of(variant).to(device), True, True, np.eye(3))
    recipe = Recipe(batch_size=arguments.batch, precision=precision)  # type: ignore[arg-type]  # the same for all
    start = Start.on_records(recipe, variant, split, augmentation)
    compiled = device.type == "cuda"
    step, _ = open_step(start, split, fused=False, precision=precision, compiled=compiled, lanes=lanes, ranks=ranks)
    return Steps(start.loader, lambda epoch, number: step.take(epoch, number, LR, 1.0))


def sum_seconds(ranks: Ranks, numbers: int) -> float:
    """What it takes to add so many numbers over the ranks: the least of a few."""
    tensor = torch.zeros(numbers, device=pick_device("auto"))
    found = []
    for _ in range(SUMS + 1):  # the first connects
        begun = time.perf_counter()
        ranks.all_reduce(tensor)
        settle()
        found.append(time.perf_counter() - begun)
    return min(found[1:])


def settle() -> None:
    """Wait for a GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


# --- the contest ----------------------------------------------------------------------------------


class Contestant:
    """One process or several, which take steps when they are told to."""

    def __init__(self, name: str, words: list[str], count: int) -> None:
        self.name = name
        command = [sys.executable, __file__, *words, "--worker", name]
        self.processes = []
        port = free_port()
        for rank in range(count):
            alone = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]}
            own = {**as_torchrun(rank, count, port), "OMP_NUM_THREADS": "1"} if count > 1 else alone
            variables = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", **own}
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE} if rank == 0 else {"stdin": subprocess.DEVNULL}
            self.processes.append(subprocess.Popen(command, env=variables, text=True, **pipes))  # type: ignore[call-overload]
        self.first = self.processes[0]
        self.found: dict[str, Any] = {}  # by scheme

    def answer(self) -> str:
        """A line from rank 0."""
        line = self.first.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} failed: its own message is above.")
        return line

    def take(self, steps: int) -> float:
        """Seconds of so many steps."""
        print(steps, file=self.first.stdin, flush=True)
        return float(self.answer())

    def end(self) -> None:
        """Let them go."""
        self.first.stdin.close()
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def as_torchrun(rank: int, count: int, port: int) -> dict[str, str]:
    """What torchrun sets in the environment of a rank, if all are on this machine."""
    here = {"RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    return {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in here.items()}}


def free_port() -> int:
    """One that is free now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def contestants(arguments: argparse.Namespace, words: list[str]) -> Iterator[list[Contestant]]:
    """All of them, started and warm; without blocks one group of ranks that tries every scheme."""
    lanes = [1] if torch.cuda.is_available() else sorted({1, arguments.ranks})
    counts = {f"one {number}": 1 for number in lanes} | dict.fromkeys(arguments.scheme, arguments.ranks)
    if not arguments.blocks:
        counts = {"+".join(arguments.scheme): arguments.ranks}
    with ExitStack() as stack:
        started = []
        for name, number in counts.items():
            started.append(Contestant(name, words, number))
            stack.callback(started[-1].end)
            started[-1].found = json.loads(started[-1].answer())
        yield started


# --- the report -----------------------------------------------------------------------------------


def compared(found: dict[str, Any], traffic: Traffic) -> dict[str, Any]:
    """The collectives of a scheme, seen and predicted."""
    seen, expected = Counter({tuple(key): number for *key, number in found["seen"]}), predicted(traffic)
    return {
        "bytes_predicted": traffic.sent,
        # gloo's reduce-scatter sends as much as a sum
        "bytes_by_gloo": sum(one.sent * (1 + (one.collective == "reduce_scatter")) for one in traffic.exchanges),
        "bytes_on_loopback": round(found["sent"] / traffic.ranks),  # gloo on one machine; nothing of nccl's
        "as_predicted": seen == expected,
        "not_predicted": [[*key, number] for key, number in (seen - expected).items()],
        "not_seen": [[*key, number] for key, number in (expected - seen).items()],
    }


def foretold(arguments: argparse.Namespace, found: dict[str, Any], alone: float, traffic: Traffic) -> dict[str, Any]:
    """What a scheme's step should take.

    Args:
        found: its connection's seconds.
        alone: seconds of a step of one process, on all cores or on one GPU.
    """
    small, large = found["connection"]
    per_message = small / (2 * (arguments.ranks - 1))
    interconnect = Interconnect("measured", 4 * LARGE * 2 * (arguments.ranks - 1) / arguments.ranks / max(large - small, 1e-9))
    times = [exchange_seconds(interconnect, one, traffic) + one.rounds * per_message for one in traffic.exchanges]
    # On a CPU the ranks have one process's cores, on GPUs each has its own.
    share = alone / arguments.ranks if torch.cuda.is_available() else alone
    device = Device("measured", 0.0, share * arguments.ranks / arguments.batch)
    return {
        "gigabytes_per_second": round(interconnect.between / 1e9, 2),
        "microseconds_of_small": round(small * 1e6),
        "predicted_hidden": round(step_seconds(device, interconnect, traffic, variant_of(arguments)), 4),
        "predicted_waiting": round(share + sum(times), 4),
    }


def main() -> None:
    """Time them all and print the table and the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="paper")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--input-size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=64, help="of all ranks together")
    parser.add_argument("--ranks", type=int, default=max(2, torch.cuda.device_count()))
    parser.add_argument("--scheme", nargs="+", default=["data"], choices=SCHEMES)
    parser.add_argument("--steps", type=int, default=2, help="in each block")
    parser.add_argument("--blocks", type=int, default=5, help="0 to compare the collectives alone")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker, arguments)
        return
    variant = variant_of(arguments)
    counts = {name: count(variant, name, batch=arguments.batch, ranks=arguments.ranks) for name in arguments.scheme}
    seconds: dict[str, list[float]] = {}
    with contestants(arguments, sys.argv[1:]) as started:
        for _ in range(arguments.blocks):
            for one in started:
                seconds.setdefault(one.name, []).append(one.take(arguments.steps) / arguments.steps)
        found = {scheme: what for one in started for scheme, what in one.found.items()}
    if arguments.blocks:
        report(arguments, seconds, found, counts)
    else:
        print(json.dumps({name: compared(found[name], traffic) for name, traffic in counts.items()}))


def report(
    arguments: argparse.Namespace, seconds: dict[str, list[float]], found: dict[str, Any], counts: dict[str, Traffic]
) -> None:
    """The table, and the line of JSON."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    base = min((name for name in seconds if name.startswith("one")), key=lambda name: medians[name])
    rows: dict[str, Any] = {}
    for name, values in seconds.items():
        ratios = [own / other for own, other in zip(values, seconds[base], strict=True)]
        rows[name] = {
            "seconds": round(medians[name], 4),
            "images_per_second": round(arguments.batch / medians[name], 2),
            "time_of_one": [round(value, 3) for value in (statistics.median(ratios), min(ratios), max(ratios))],
        }
        if name in counts:
            rows[name] |= compared(found[name], counts[name]) | foretold(arguments, found[name], medians[base], counts[name])
    header = (
        "",
        "images/s",
        "time of one",
        "range",
        "predicted, hidden or not",
        "MB sent",
        "by gloo",
        "on loopback",
        "collectives",
    )
    cells = [header, *(line_of(name, row, medians[base]) for name, row in rows.items())]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    described = {
        name: getattr(arguments, name) for name in ("variant", "width", "input_size", "batch", "ranks", "steps", "blocks")
    }
    print(json.dumps({"benchmark": "train_ranks", **described, "rows": rows, "environment": environment()}))


def line_of(name: str, row: dict[str, Any], alone: float) -> tuple[str, ...]:
    """A contestant in the table."""
    middle, least, most = row["time_of_one"]
    cells = (name, f"{row['images_per_second']:.1f}", f"{middle:.2f}", f"{least:.2f} to {most:.2f}")
    if "bytes_predicted" not in row:
        return (*cells, *[""] * 5)
    foretold = " to ".join(f"{row[key] / alone:.2f}" for key in ("predicted_hidden", "predicted_waiting"))
    sent = (f"{row[key] / 1e6:.1f}" for key in ("bytes_predicted", "bytes_by_gloo", "bytes_on_loopback"))
    return (*cells, foretold, *sent, "as predicted" if row["as_predicted"] else "NOT as predicted")


if __name__ == "__main__":
    main()
