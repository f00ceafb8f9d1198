"""`alexnet prepare`, `alexnet verify`: photos to a store, and what is still as it was written."""

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from alexnet import paper
from alexnet.cli.next_step import PHOTO, next_step, train_on
from alexnet.cli.tables import MOST_CLASSES_SHOWN, print_line, print_table
from alexnet.console import say
from alexnet.data.limits import MAX_PIXELS
from alexnet.errors import CheckpointError, SourceError

if TYPE_CHECKING:
    from alexnet.data.store import Store

MOST_SKIPPED_SHOWN = 10


def prepare(
    paths: Positional[Annotated[tuple[Path, ...], arg(metavar="SOURCE [SOURCE ...] STORE")]],
    train: Path | None = None,
    test: Path | None = None,
    image: str | None = None,
    size: int | None = None,
    resize: Literal["short-side", "squash"] | None = None,
    for_recipe: Annotated[str | None, arg(name="for", metavar="RECIPE")] = None,
    hold_out: float = 0.1,
    seed: int = 0,
    strict: bool = False,
    workers: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> None:
    """Turn photos into a store that training reads: decoded, shrunk to squares, checked.

    A source is a folder with a folder for each class (which may be inside train/ and val/), the
    ILSVRC2012 tars as downloaded, WebDataset shards, image parquet files, or IDX files; several files
    may be named. Pictures are JPEG, PNG, WebP, AVIF, HEIC, GIF, BMP, TIFF or PNM, recognised by their
    content. Transparency is laid on white. Colours are converted to sRGB if the picture has another
    colour profile. Files that are not usable pictures (empty, truncated, of an unknown format, too
    large) are skipped and listed. If interrupted, the same command continues.

    The parts for training and testing are recognised by their names: train, Training, training_set, seg_train and test, val,
    dev, holdout ... If that fails, name them: alexnet prepare --train PATH --test PATH STORE

    Args:
        paths: the source (a folder, or files), then the store's folder. The store alone if --train names the source.
        train: the part to train on, whatever its name: a file, or a folder whose folders are the classes.
        test: the part to test with; if not given, a share of the part to train on is held out.
        image: ending of the picture to take where a key of WebDataset shards has several; jpg before others if not given.
        size: side of the stored squares in pixels, even; 256 if not given. Training takes crops of at most this size.
        resize: scale the short side and keep the centre square (the usual way), or squash the whole picture into the square.
        for_recipe: take the size and the resize rule that this recipe trains on; `train` shrinks larger pictures itself.
        hold_out: share of each class that is kept for testing if the source has no part for that. Which pictures depends on
            their content alone: equal files go together, and a picture added later moves no other.
        seed: chooses which ones those are.
        strict: stop at the first file that is not a usable picture, instead of skipping it.
        workers: processes that decode; one for each core if not given.
        max_pixels: skip pictures with more pixels, as decompression bombs. A worker needs up to 16
            bytes of memory for each pixel (1.4 GB at the default), and the file. A JPEG that is not
            progressive is shrunk on decoding: it may have 400 million pixels whatever the limit.
    """
    from alexnet.data.prepare import prepare as run
    from alexnet.train import recipes

    if len(paths) < (1 if train or test else 2):
        raise SourceError("prepare needs a source and a store: alexnet prepare photos/ store/")
    *source, store = paths
    usual = recipes.get(for_recipe).stored_as if for_recipe else {"size": paper.STORED_SIZE, "resize": "short-side"}
    given = {"size": size, "resize": resize}
    stored_as = usual | {name: value for name, value in given.items() if value is not None}
    _describe(
        run(
            source, store, train=train, test=test, image=image, **stored_as, hold_out=hold_out, seed=seed, strict=strict,
            workers=workers, max_pixels=max_pixels,
        )
    )  # fmt: skip


def verify(folder: Positional[Path], data: Path | None = None) -> None:
    """Compare a store with its checksums, or a run with its result.json. The exit status is 1 if anything differs.

    A store is read completely, its classes are counted and its mean is computed again. For a run, files and weights are
    hashed and the held-out pictures are tested again; for a family, this is done for every member.

    Args:
        folder: a store's, a run's or a family's folder.
        data: for a run, the store that it was trained on; the one named in its configuration if not given.
    """
    from alexnet.study.family import members
    from alexnet.train.run import CONFIG

    runs = [folder] if (folder / CONFIG).exists() else members(folder)
    if runs:
        _verify_runs(runs, data)
    elif data:
        raise CheckpointError(f"{folder} is not a run's folder (it has no {CONFIG}): --data is for runs.")
    else:
        _verify_store(folder)


def _verify_runs(runs: list[Path], data: Path | None) -> None:
    from alexnet.train.place import changes
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
                f"{run} is what it says: top-1 error {evaluation['top1_error']:.2%} on {evaluation['images']:,} pictures."
            )
            places = recorded.get("environments", [])
            for earlier, later in pairwise(places):
                print_line(f"{run} was resumed elsewhere ({changes(earlier, later)}): no single run would give the same bits.")
    if damaged:
        say("Next: put the files back from a copy, or train the run again into another folder.")
        raise SystemExit(1)
    next_step(*(["report", runs[0], "--data", data] if data else ["predict", runs[0], PHOTO]))


def _verify_store(store: Path) -> None:
    from alexnet.console import Meter
    from alexnet.data.store import Store

    opened = Store(store)
    with Meter("verifying", sum(map(len, opened.splits.values())), "images") as meter:
        damage = opened.verify(meter.add)
    for line in damage:
        print_line(line)
    if damage:
        say("Next: put the files back from a copy, or prepare the store again into another folder.")
        raise SystemExit(1)
    print_line(f"{store} is whole: {', '.join(f'{len(split):,} {name}' for name, split in opened.splits.items())} pictures.")
    train_on(opened)


def _describe(store: "Store") -> None:
    """What `prepare` made: counts for each class, and what was left out."""
    from alexnet.data.store import SKIPPED

    names = list(store.splits)
    per_class = [store.manifest["splits"][name]["per_class"] for name in names]
    if len(store.classes) <= MOST_CLASSES_SHOWN:
        rows = [[name, *counts] for name, *counts in zip(store.classes, *per_class, strict=True)]
        print_table(["class", *names], [*rows, ["total", *map(sum, per_class)]])
    else:
        for name, counts in zip(names, per_class, strict=True):
            print_line(
                f"{name}: {sum(counts):,} pictures in {len(counts):,} classes, {min(counts):,} to {max(counts):,} in each"
            )
    if skipped := store.skipped:
        print_line(f"{len(skipped):,} files skipped, listed in {store.folder / SKIPPED}:")
        for entry in skipped[:MOST_SKIPPED_SHOWN]:
            print_line(f"  {entry.file!r}: {entry.reason}")
    size = sum(split.records.nbytes for split in store.splits.values())
    print_line(f"{store.folder}: {store.size} x {store.size} pixels, {size / 1e6:,.1f} MB, fingerprint {store.fingerprint}")
    train_on(store)
