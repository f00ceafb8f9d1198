"""`alexnet prepare`: make a store of photos."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from alexnet import paper
from alexnet.cli.next_step import train_on
from alexnet.cli.tables import MOST_CLASSES_SHOWN, print_line, print_table
from alexnet.data.limits import MAX_PIXELS
from alexnet.errors import UsageError
from alexnet.phrases import counted

if TYPE_CHECKING:
    from alexnet.data.store import Store

MOST_SKIPPED_SHOWN = 10


def prepare(
    paths: Positional[Annotated[tuple[Path, ...], arg(metavar="SOURCE [SOURCE ...] STORE", help_behavior_hint="")]],
    train: Path | None = None,
    test: Path | None = None,
    labels: Path | None = None,
    image: str | None = None,
    size: int | None = None,
    resize: Literal["short-side", "squash"] | None = None,
    for_recipe: Annotated[str | None, arg(name="for", metavar="RECIPE")] = None,
    hold_out: float = 0.1,
    seed: int = 0,
    shuffle: bool = False,
    strict: bool = False,
    workers: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> None:
    """Turn photos into a store for training: decoded, checked, and shrunk to squares.

    A source is a folder with one folder per class (which may be inside train/ and val/), the
    ILSVRC2012 tars as downloaded, WebDataset shards, image parquet files, or IDX files; several
    files may be named. Or it is a name that `alexnet data list` shows, such as flowers: what is not
    here is downloaded. Pictures are JPEG, PNG, WebP, AVIF, HEIC, GIF, BMP, TIFF or PNM, recognised
    by their content. Transparent areas become white. Pictures with another colour profile are
    converted to sRGB. Files that cannot be used (empty, truncated, of an unknown format, too large)
    are skipped and listed. If interrupted, the same command continues.

    The parts for training and testing are recognised by their names: train, Training, training_set,
    seg_train, and test, val, dev, holdout ... If that fails, name them yourself: alexnet prepare
    --train PATH --test PATH STORE

    Args:
        paths: the source (a folder, or files), then the store's folder; only the store if --train
            names the source.
        train: the part to train on, whatever its name: a file, or a folder whose
            folders are the classes.
        test: the part to test with; without it, a share of the training part is held out.
        labels: a table with the class of each photo of a folder: a text file with two columns, file
            and class, between commas, semicolons or tabs; a third one may hold the split.
        image: extension of the picture to take if a key of WebDataset shards has several; by
            default jpg is preferred.
        size: side of the stored squares in pixels, an even number; 256 by default. Training crops
            are at most this large.
        resize: scale the short side and keep the centre square (the usual way), or squash the whole
            picture to a square.
        for_recipe: use the size and the resize rule that this recipe trains on; `train` shrinks
            larger pictures itself.
        hold_out: share of each class that is kept for testing if the source has no test part. The
            choice depends only on the content of the files: identical files stay together, and
            adding a picture later moves no other.
        seed: changes which pictures are held out, and the order of --shuffle.
        shuffle: store the training pictures in random order instead of class by class, for `train
            --shuffle-blocks`.
        strict: stop at the first file that is not a usable picture, instead of skipping it.
        workers: processes that decode; one per core by default.
        max_pixels: skip pictures with more pixels, as decompression bombs. Each worker needs up to
            16 bytes of memory per pixel (1.4 GB at the default) plus the file. A JPEG that is not
            progressive is shrunk while it is decoded and may have 400 million pixels, whatever the
            limit.
    """
    from alexnet.data.prepare import prepare as run
    from alexnet.train import recipes

    if len(paths) < (1 if train or test else 2):
        raise UsageError("prepare needs a source and a store: alexnet prepare photos/ store/")
    *source, store = paths
    usual = recipes.get_recipe(for_recipe).stored_as if for_recipe else {"size": paper.STORED_SIZE, "resize": "short-side"}
    given = {"size": size, "resize": resize}
    stored_as = usual | {name: value for name, value in given.items() if value is not None}
    _describe(
        run(
            source,
            store,
            train=train,
            test=test,
            labels=labels,
            image=image,
            **stored_as,
            hold_out=hold_out,
            seed=seed,
            shuffle=shuffle,
            strict=strict,
            workers=workers,
            max_pixels=max_pixels,
        )
    )


def _describe(store: "Store") -> None:
    """Print what `prepare` made: pictures per class, and what was left out."""
    from alexnet.data.store import SKIPPED

    names = list(store.splits)
    per_class = [store.manifest["splits"][name]["per_class"] for name in names]
    if len(store.classes) <= MOST_CLASSES_SHOWN:
        rows = [[name, *counts] for name, *counts in zip(store.classes, *per_class, strict=True)]
        print_table(["class", *names], [*rows, ["total", *map(sum, per_class)]])
    else:
        for name, counts in zip(names, per_class, strict=True):
            each = f"{min(counts):,} to {max(counts):,} in each"
            print_line(f"{name}: {counted(sum(counts), 'picture')} in {len(counts):,} classes, {each}")
    if skipped := store.skipped:
        print_line(f"{counted(len(skipped), 'file')} skipped, listed in {store.folder / SKIPPED}:")
        for entry in skipped[:MOST_SKIPPED_SHOWN]:
            print_line(f"  {entry.file!r}: {entry.reason}")
    size = sum(split.records.nbytes for split in store.splits.values())
    print_line(f"{store.folder}: {store.size} x {store.size} pixels, {size / 1e6:,.1f} MB, fingerprint {store.fingerprint}")
    train_on(store)
