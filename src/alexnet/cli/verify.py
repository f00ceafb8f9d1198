"""`alexnet verify`: check a store or a run for damage."""

from itertools import pairwise
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from alexnet.address import is_address, shown
from alexnet.cli.next_step import PHOTO, next_step, train_on
from alexnet.cli.options import DataIfAny
from alexnet.cli.tables import print_line
from alexnet.console import say
from alexnet.errors import UsageError


def verify(folder: Positional[Annotated[str, arg(metavar="FOLDER")]], data: DataIfAny = None) -> None:
    """Check a store against its checksums, or a run against its result.json. The exit status is 1
    if anything differs.

    For a store, every file is read, its classes are counted and its mean is computed again. For a
    run, files and weights are hashed and the held-out pictures are tested again; for a family,
    every member is checked.

    Args:
        folder: a store's, a run's or a family's folder, or the address of a store.
        data: for a run, the store that it was trained on; by default the one named in its
            configuration.
    """
    from alexnet.run_folder import CONFIG, is_run, members

    path = Path(folder)
    runs = [] if is_address(folder) else [path] if is_run(path) else members(path)
    if runs:
        _verify_runs(runs, data)
    elif data:
        raise UsageError(
            f"--data is for runs only, and {shown(folder)} is not a run's folder (it has no {CONFIG}): drop --data."
        )
    else:
        _verify_store(folder)


def _verify_runs(runs: list[Path], data: str | None) -> None:
    from alexnet.run_folder import changes
    from alexnet.train.result import read_result, verify_run

    damaged = False
    for run in runs:
        differences = verify_run(run, data)
        damaged |= bool(differences)
        for line in differences:
            print_line(f"{run}: {line}")
        if not differences:
            recorded = read_result(run)
            evaluation = recorded["evaluation"]
            print_line(
                f"{run} matches its result.json: top-1 error {evaluation['top1_error']:.2%} on "
                f"{evaluation['images']:,} pictures."
            )
            places = recorded.get("environments", [])
            for earlier, later in pairwise(places):
                print_line(
                    f"{run} was resumed in another environment ({changes(earlier, later)}): a "
                    "single run would not give identical weights."
                )
    if damaged:
        say("Next: restore the files from a backup, or train again into another folder.")
        raise SystemExit(1)
    next_step(*(["report", runs[0], "--data", data] if data else ["predict", runs[0], PHOTO]))


def _verify_store(store: str) -> None:
    from alexnet.data.store import Store
    from alexnet.meter import Meter

    opened = Store(store)
    with Meter("verifying", sum(map(len, opened.splits.values())), "images") as meter:
        damage = opened.verify(meter.add)
    for line in damage:
        print_line(line)
    if damage:
        say("Next: restore the files from a backup, or prepare the store again in another folder.")
        raise SystemExit(1)
    counts = ", ".join(f"{len(split):,} {name}" for name, split in opened.splits.items())
    print_line(f"{opened.address} is undamaged: {counts} pictures.")
    train_on(opened)
