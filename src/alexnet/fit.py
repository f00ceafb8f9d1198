"""A folder of photos to a tested network: `alexnet fit photos --out run`.

`fit` is the whole way: list the photos, say what comes and how long it takes, make a store of them,
keep near-duplicates on one side of its split, train, test on the held-out photos, write the page.
Each step keeps what it has done in the run's folder, so that the same command goes on wherever
it was stopped, and ends at once where all is done.

    run/
    ├── fit.json      what was asked: photos, store, minutes
    ├── store/        the photos as records (data/store.py), unless `data` names another folder
    ├── config.json   and all else that a run has (run_folder.py)
    └── report.html   the page
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import numpy as np
import torch

from alexnet import engines, forecast, intervals, report, schema
from alexnet.address import as_typed, was_address
from alexnet.arguments import as_path
from alexnet.console import say
from alexnet.data import alike, sources
from alexnet.data.hold_out import check_share
from alexnet.data.prepare import HOLD_OUT, check_apart, prepare
from alexnet.data.preprocessing import Views
from alexnet.data.regroup import recover, regrouped
from alexnet.data.sources import Source
from alexnet.data.store import MANIFEST, SKIPPED, Hash, Store, sha256
from alexnet.data.writer import check_free
from alexnet.errors import Interrupted, RecipeError, SourceError, StoreError, TrainingError
from alexnet.evaluate import evaluate_classifier
from alexnet.files import LOCK, lock, make_folder, unlock, write_json
from alexnet.phrases import MOST_NAMED, counted, quoted
from alexnet.plan import FROM_SCRATCH, ClassWeights, Plan, Work, weights_here
from alexnet.published import data as published
from alexnet.run_folder import FIT, LATEST, REPORT, RESULT, STORE, Count, Seconds, Share, is_run
from alexnet.schema import Range
from alexnet.train import recipes
from alexnet.train.history import read_config
from alexnet.train.loop import train_and_test
from alexnet.train.recipes import Recipe
from alexnet.train.run import check_is_path
from alexnet.train.session import open_session

MOST_IN_TEN_VIEWS = 4000
FEW, UNBALANCED = 10, 3.0  # photos of a class; times as many in the largest as in the smallest
REMEDY = "Name another --out."


@dataclass(frozen=True)
class Tested:
    """What the test gave.

    Attributes:
        images, wrong: held-out photos tested, and how many of them were classified wrongly.
        chance: the error of always naming the most frequent class, a share in [0, 1].
        views: of each photo.
        seconds: that training took.
        result: SHA-256 of the run's `result.json` at that time; it changes when the run is trained
            for longer.
    """

    images: Annotated[int, Range(1)]
    wrong: Count
    chance: Share
    views: Annotated[int, Range(1, 10)]
    seconds: Seconds
    result: Hash | None = None


@dataclass(frozen=True)
class Asked:
    """What `fit.json` holds: what the command's first start was asked for.

    Attributes:
        photos: the source.
        data: the store's folder; in the file, relative to the run's if it is inside it.
        made: whether the store is made by this command, and is its to change.
        labels: table with the class of each photo.
        hold_out: share of each class that is kept for testing, if the source has no test part.
        weights: that training begins with, a file or a published name; None for none.
        variant: of such weights, if they do not say which.
        class_weights: as the recipe's field.
        minutes: that all of it may take; None for as many as the recipe takes.
        tested: of a run that has ended.
    """

    photos: str
    data: str
    made: bool
    labels: str | None = None
    hold_out: float = HOLD_OUT
    weights: str | None = None
    variant: str | None = None
    class_weights: ClassWeights = None
    minutes: Annotated[float, Range(0)] | None = None
    tested: Tested | None = None


@dataclass(frozen=True)
class Fitted:
    """How it went.

    Attributes:
        run: the run's folder.
        tested: the error.
        report: the page.
    """

    run: Path
    tested: Tested
    report: Path

    def as_json(self) -> dict[str, Any]:
        """Plain data; errors and the 95 % interval are shares in [0, 1]."""
        tested = self.tested
        return {
            "run": str(self.run),
            "images": tested.images,
            "top1_error": round(tested.wrong / tested.images, 6),
            "top1_interval": [round(end, 6) for end in intervals.wilson(tested.wrong, tested.images)],
            "chance": round(tested.chance, 6),
            "views": tested.views,
            "seconds": round(tested.seconds, 1),
            "report": str(self.report),
        }


def fit(
    photos: str | Path,
    out: str | Path,
    *,
    labels: str | Path | None = None,
    weights: str | Path | None = None,
    variant: str | None = None,
    hold_out: float = HOLD_OUT,
    class_weights: ClassWeights = None,
    minutes: float | None = None,
    data: str | Path | None = None,
) -> Fitted:
    """Prepare photos, train on them, test, and write a page. Run again, it goes on.

    Args:
        photos: a folder with a folder per class, any other source of `data/sources/find.py`, or
            the name of a published data set.
        out: the run's folder; the store is made inside it.
        labels: a table with the class of each photo, for a folder that is not sorted by class.
        weights: to begin with: a file in any format, a run's folder, or the name of published
            weights; by default published ones that are on this machine, else none.
        variant: which AlexNet the weights are of, if their file does not say so.
        hold_out: share of each class that is kept for testing, if the source has no test part.
        class_weights: "balanced" lets classes of unequal size count alike.
        minutes: that all of it may take; None for as many as the recipe takes.
        data: folder of the store, in place of `out`/store; one that is there is used.

    Raises:
        SourceError: the photos cannot be used, or have other classes than when the run began.
        RecipeError: the minutes are too few for one pass over the photos.
        TrainingError: `out` holds something else, or a run of other photos.
        Interrupted: the user stopped it; it was saved.
    """
    photos, out = as_path(photos, "photos"), as_path(out, "out")
    check_is_path(out)
    folder = _store_folder(out, data)
    table = None if labels is None else str(as_path(labels, "labels").absolute())
    made = not (folder / MANIFEST).exists()
    start = None if weights is None else str(Path(weights).absolute() if Path(weights).exists() else weights)
    known = str(photos) in published.names() and not photos.exists()  # a data set's name, the same in any folder
    name = str(photos if known else photos.absolute())
    now = Asked(name, str(folder.absolute()), made, table, hold_out, start, variant, class_weights, minutes)
    asked = _begin(now, out)
    if earlier := _finished(asked, out):
        return earlier
    source = _find(photos, asked)
    with _saying_how_to_go_on():
        if begun := is_run(out):
            _prepare_again(source, asked, out)
            plan = Plan(read_config(out).recipe)
        else:
            asked, plan = _start(source, asked, out)
        store = Store(asked.data)
        with open_session(plan.recipe, store, out, resume=begun, base=plan.base) as session:
            trained, result = train_and_test(session)
            store = session.store  # in pictures of the network's size
        views = _views(plan.recipe, store)
        if result is None or result.views != views:
            result = evaluate_classifier(engines.of(trained), store, views=views)
        page = report.write(out / REPORT, f"AlexNet on {photos.absolute().name}", trained, store, result, out)
    proof = sha256((out / RESULT).read_bytes())
    tested = Tested(result.images, result.wrong, result.chance, result.views, trained.state["seconds"], proof)
    _write(replace(asked, tested=tested), out)
    return Fitted(out, tested, page)


@contextmanager
def _saying_how_to_go_on() -> Iterator[None]:
    try:
        yield
    except (Interrupted, KeyboardInterrupt) as stop:
        raise Interrupted from stop


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Refuse to work in a folder in which another process is making the store."""
    held = lock(out)
    if held is None:
        raise TrainingError(f"another process is at work in {out}: wait for it to finish, or name another --out.")
    try:
        yield
    finally:
        unlock(held)


# --- begin, or go on ------------------------------------------------------------------------------


def _begin(now: Asked, out: Path) -> Asked:
    """What the first start was asked for, which this may be."""
    if now.minutes is not None and not 0 < now.minutes < recipes.HUGE:
        raise RecipeError(f"minutes (={now.minutes}) must be above 0 and below {recipes.HUGE:,.0f}.")
    check_share(now.hold_out)
    earlier = _read(out) if (out / FIT).exists() else None
    if earlier and not _nothing_made(earlier, out):
        return _same(earlier, now, out)
    if is_run(out):
        raise TrainingError(f"{out} is a run of `alexnet train`: continue it with `alexnet train --resume`. {REMEDY}")
    if out.exists() and (not out.is_dir() or any(entry.name not in (LOCK, FIT) for entry in out.iterdir())):
        raise TrainingError(f"{out} exists and is not a run of `alexnet fit`: name a new or an empty folder.")
    if Path(now.data) in (out.absolute(), *out.absolute().parents):
        raise TrainingError(f"data (={now.data}) must not hold the run {out}: leave it out for {out / STORE}, or name another.")
    if now.made:
        check_free(Path(now.data))
    return now


def _nothing_made(earlier: Asked, out: Path) -> bool:
    """Whether the first start ended before it made anything, as with photos that are too few."""
    return not Path(earlier.data).exists() and all(entry.name in (LOCK, FIT) for entry in out.iterdir())


def _store_folder(out: Path, data: str | Path | None) -> Path:
    """Where the store is or will be, with its name if a stopped start left it between two."""
    folder = out / STORE if data is None else as_path(data, "data")
    if was_address(folder):
        raise StoreError(f"data (={as_typed(folder)}) is an address, but `alexnet fit` needs a store in a folder: name one.")
    recover(folder)
    return folder


def _read(out: Path) -> Asked:
    asked = schema.read_json(out / FIT, Asked, TrainingError, REMEDY)
    return replace(asked, data=str((out / asked.data).absolute()))


def _write(asked: Asked, out: Path) -> None:
    data, inside = Path(asked.data), Path(asked.data).is_relative_to(out.absolute())
    write_json(out / FIT, asdict(replace(asked, data=str(data.relative_to(out.absolute()) if inside else data))))


def _same(earlier: Asked, now: Asked, out: Path) -> Asked:
    """What was asked for earlier, if it is asked for again."""
    earlier = _moved(earlier, now, out)
    for name in ("photos", "labels", "data", "hold_out"):
        then, given = getattr(earlier, name) or "none", getattr(now, name) or "none"
        if then != given:
            raise TrainingError(f"{out} was begun with {name} (={then}), not {given}: name the same, or another --out.")
    for name in ("weights", "variant", "class_weights"):
        then, given = getattr(earlier, name), getattr(now, name)
        if given not in (None, then):
            raise TrainingError(
                f"{out} was begun with {name} (={then or 'none'}), not {given}: name the same, or another --out."
            )
    if now.minutes not in (None, earlier.minutes):
        say(f"minutes (={now.minutes:g}) counts at the first start only: {out} goes on as it was planned.")
    return earlier


def _moved(earlier: Asked, now: Asked, out: Path) -> Asked:
    """What was asked for earlier, with the present paths of files that are no longer where they
    were: a disk may have another name, or everything may have been moved.
    """
    for name in ("photos", "labels", "data", "weights"):
        then, given = getattr(earlier, name), getattr(now, name)
        if None in (then, given) or then == given or Path(then).exists() or not Path(given).exists():
            continue
        if name == "weights" and is_run(out) and not (out / LATEST).exists():
            continue  # they are read again, from where its recipe says
        if Path(then).is_absolute():  # else it is a published name
            say(f"{then}, with which {out} was begun, no longer exists: using {given} instead.")
            made = earlier.made and (now.made or name != "data")  # another's store is not changed
            earlier = replace(earlier, made=made, **{name: given})
    return earlier


def _finished(asked: Asked, out: Path) -> Fitted | None:
    """What a finished run has reached, with a line on what to do for more."""
    result, page = out / RESULT, out / REPORT
    if result.exists() and not (out / LATEST).exists():
        there = (Path(asked.data) / MANIFEST).exists()
        same = f", where --data {quote(asked.data)} keeps the same test photos" if there else ""
        raise TrainingError(
            f"{out} is finished, but its {LATEST}, which holds the network, is missing: restore it from a copy, or fit again "
            f"with another --out{same}."
        )
    if not asked.tested or not page.exists() or not result.exists():
        return None
    if asked.tested.result != sha256(result.read_bytes()):
        return None
    photos = Path(asked.photos)
    recipe = read_config(out).recipe
    more = f"To train it for longer: `alexnet train --resume --out {out} --epochs {2 * recipe.epochs}`. "
    kept = (Path(asked.data) / MANIFEST).exists()
    say(f"{out} is finished. {more if kept and recipe.tune != 'head' else ''}For other photos, name another --out.")
    if not kept:
        say(
            f"{asked.data}, its store, is gone: nothing needs doing, unless you want to test it again or train it for longer. "
            "To fit the same photos anew, name another --out."
        )
    elif photos.exists():
        try:
            _say_what_changed(photos, _listed(photos, asked), Store(asked.data))
        except (SourceError, StoreError) as error:
            say(f"The photos cannot be compared with those that it was trained on: {error}")
    return Fitted(out, asked.tested, page)


def _views(recipe: Recipe, store: Store) -> Views:
    """Ten views of each photo on weights, as the last layer is fitted to ten; one of many photos,
    as ten would take longer than all else.
    """
    return 10 if recipe.weights and len(store.held_out) <= MOST_IN_TEN_VIEWS else 1


def _find(photos: Path, asked: Asked) -> Source | None:
    """The photos; None where they are gone and the store is there."""
    finished = (Path(asked.data) / MANIFEST).exists()
    if finished and not photos.exists() and str(photos) not in published.names():
        say(f"{photos} is no longer there: going on with the store {asked.data}.")
        return None
    check_apart(Path(asked.data), [photos])
    source = _listed(published.source_of(photos), asked)
    if finished:
        store = Store(asked.data)
        if source.classes != store.classes:
            raise SourceError(
                f"{photos} has other classes than when {store.folder} was made ({_classes_changed(source, store)}): name them "
                "as they were, or begin anew with another --out."
            )
        _say_what_changed(photos, source, store)
    return source


def _listed(photos: Path, asked: Asked) -> Source:
    return sources.find([photos], labels=None if asked.labels is None else Path(asked.labels))


def _say_what_changed(photos: Path, source: Source, store: Store) -> None:
    """Print which photos and classes are new or gone since the store was made."""
    now = {item.name: source.classes[item.label] for items in source.splits.values() for item in items}
    then = {
        name: store.classes[label]
        for split in store.splits.values()
        for name, label in zip(split.files, split.labels.tolist(), strict=True)
    }
    came, went = now.keys() - then.keys() - {entry.file for entry in store.skipped}, then.keys() - now.keys()
    other = [name for name in now.keys() & then.keys() if now[name] != then[name]]
    counts = {"new": len(came), "gone": len(went), "of another class": len(other)}
    changes = [f"{counted(count, 'photo')} {what}" for what, count in counts.items() if count]
    if source.classes != store.classes:
        changes.append(f"classes {_classes_changed(source, store)}")
    if changes:
        say(
            f"{photos} has changed since {store.folder} was made ({', '.join(changes)}); this run uses the photos as "
            "they were then. To train on the present ones, name another --out."
        )


def _classes_changed(source: Source, store: Store) -> str:
    """Which classes are new or gone since the store was made."""
    came, went = sorted({*source.classes} - {*store.classes}), sorted({*store.classes} - {*source.classes})
    return f"new: {quoted(came) or 'none'}; gone: {quoted(went) or 'none'}"


# --- the store ------------------------------------------------------------------------------------


def _work(source: Source | None, plan: Plan, asked: Asked) -> Work:
    if (Path(asked.data) / MANIFEST).exists():
        store = Store(asked.data)
        return Work(sum(map(len, store.splits.values())), len(store.classes))
    assert source
    items = [item for one in source.splits.values() for item in one]
    return Work(len(items), len(source.classes), forecast.preparing_seconds(items, *plan.stored_as))


def _prepare(source: Source | None, plan: Plan, asked: Asked) -> None:
    """Make the store if it is not there, with near-duplicates on one side of its split."""
    folder, (size, resize) = Path(asked.data), plan.stored_as
    if not (folder / MANIFEST).exists():
        assert source
        prepare(source, folder, size=size, resize=resize, hold_out=asked.hold_out)
    store = Store(folder)
    if asked.made and source and len(source.splits) == 1:
        store = _with_groups(store, plan)
    for line in _notes(store, asked.class_weights is not None):
        say(line)


def _start(source: Source | None, asked: Asked, out: Path) -> tuple[Asked, Plan]:
    """Say what comes, and make the store; the weights that were found here are asked for now."""
    asked = replace(asked, weights=weights_here(asked.weights))
    plan = Plan.of(asked.weights, asked.variant, asked.class_weights)
    _check_size(plan, asked)
    plan = plan.within(asked.minutes, _work(source, plan, asked))
    make_folder(out, TrainingError)
    with _alone(out):
        _write(asked, out)  # now that nothing is left to refuse
        _prepare(source, plan, asked)
    return asked, plan


def _check_size(plan: Plan, asked: Asked) -> None:
    """Refuse a store whose pictures are too small for training from scratch."""
    data, least = Path(asked.data), plan.recipe.crop_size
    if plan.base or not (data / MANIFEST).exists() or (store := Store(data)).size >= least:
        return
    raise RecipeError(
        f"data (={data}) has pictures of {store.size} pixels, but {FROM_SCRATCH} is trained on {least}: leave out --data, so "
        "that the photos are prepared for it, or name trained weights with --from, for which small pictures are enlarged."
    )


def _prepare_again(source: Source | None, asked: Asked, out: Path) -> None:
    """Make the store of a run that has begun once more if it was deleted: with the same photos it
    becomes the same, with the same ones held out.

    Raises:
        TrainingError: it does not.
    """
    folder, config = Path(asked.data), read_config(out)
    there = (folder / MANIFEST).exists()
    if not there and not asked.made:
        raise TrainingError(f"{folder}, the store of {out}, is gone: put it back, or begin anew with another --out.")
    if not asked.made or (there and Store(folder).fingerprint == config.store.fingerprint):
        return
    say(f"{folder} is not the store that {out} was begun with, or not whole: preparing it again.")
    with _alone(out):
        _prepare(source, Plan.of(asked.weights, asked.variant, asked.class_weights), asked)
        if Store(folder).fingerprint == config.store.fingerprint:
            return
        if not there:
            shutil.rmtree(folder)
    gone = "is gone, and prepared again it is another one, as the photos have changed"
    raise TrainingError(
        f"{folder}, the store of {out}, {'is not the one that it was begun with' if there else gone}: other photos would be "
        "held out for testing. Put the store or the photos back, or begin anew with another --out."
    )


def _with_groups(store: Store, plan: Plan) -> Store:
    """The store with near-duplicates on one side of its split."""
    splits = store.train, store.held_out
    count = sum(map(len, splits))
    if count > alike.MOST:
        say(f"Near-duplicates were not looked for: {count:,} photos are more than {alike.MOST:,}.")
        return store
    kinds = [alike.thumbnails(*(split.records for split in splits))]
    if plan.base:
        kinds.append(alike.scenes(torch.cat([plan.pool5(split) for split in splits])))
    group = alike.groups(kinds)
    if group is None:
        say("Near-duplicates were not looked for: most of the photos are alike.")
        return store
    return regrouped(store, group)


def _notes(store: Store, balanced: bool) -> Iterator[str]:
    """A line each on skipped files, classes with few photos, and classes of unequal size."""
    if skipped := store.skipped:
        some = "; ".join(f"{entry.file!r}: {entry.reason}" for entry in skipped[:MOST_NAMED])
        more = f"; and {len(skipped) - MOST_NAMED:,} more" if len(skipped) > MOST_NAMED else ""
        yield f"{counted(len(skipped), 'file')} skipped ({some}{more}), listed in {store.folder / SKIPPED}."
    counts = np.bincount(np.concatenate([split.labels for split in store.splits.values()]), minlength=len(store.classes))
    few = [name for name, count in zip(store.classes, counts, strict=True) if count < FEW]
    if few:
        are = "has" if len(few) == 1 else "have"
        yield f"{counted(len(few), 'class')} {are} fewer than {FEW} photos ({quoted(few)}): so few hardly teach or test."
    least, most = int(np.argmin(counts)), int(np.argmax(counts))
    if counts[most] > UNBALANCED * counts[least] and not balanced:
        yield (
            f"The classes are of unequal size, from {counts[least]:,} ({store.classes[least]!r}) to {counts[most]:,} photos "
            f"({store.classes[most]!r}): the network favours the large ones, unless --class-weights balanced is given."
        )
