"""The command line: `alexnet VERB`. Each function is a verb; its arguments and docstring are its `--help`.

PyTorch takes a second to import, so the verbs import what they need when they run, and `--help` and `summary` answer at once.
"""

import csv
import io
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

import tyro
from tyro.conf import OmitArgPrefixes, OmitSubcommandPrefixes, Positional, arg, subcommand

from alexnet import paper
from alexnet.errors import AlexNetError, CheckpointError, Interrupted, RecipeError, SourceError, VariantError, nearest
from alexnet.train import ablations, recipes
from alexnet.train.ablations import ABLATIONS
from alexnet.train.recipes import RECIPES, Recipe

if TYPE_CHECKING:
    from alexnet.data.store import Store
    from alexnet.ensemble import Average
    from alexnet.evaluate import Evaluation
    from alexnet.predict import Prediction
    from alexnet.train.doctor import Diagnosis

MOST_CLASSES_SHOWN = 30
ABLATION_RECIPE = "small-photos"  # it has all that can be taken away: dropout, crops, mirrors, colour noise
MANY = 200  # pictures from which on `predict` says how fast it was
Engine = Literal["auto", "openvino", "onnxruntime", "torch"]


# --- alexnet summary --------------------------------------------------------------------------------------------------


def summary(
    variant: Positional[str] = "paper",
    format: Literal["table", "markdown", "json"] = "table",
    input_size: int | None = None,
    width: float = 1.0,
    num_classes: int | None = None,
    explain: bool = False,
) -> None:
    """Show a network layer by layer: shapes, parameters, multiply-adds, memory, receptive fields.

    Args:
        variant: paper, code-2012, caffe, caffenet, owt or torchvision.
        format: how to print it.
        input_size: side of the input in pixels; the variant's own if not given.
        width: factor on the kernels and units of every layer but the last.
        num_classes: outputs of the last layer; the variant's own if not given.
        explain: write out each layer's formula with its numbers.
    """
    from alexnet import summary as view
    from alexnet.variants import get

    changes = {"input_size": input_size, "num_classes": num_classes}
    chosen = get(variant, width=width, **{name: value for name, value in changes.items() if value is not None})
    if explain:
        if format != "table":
            raise VariantError(f"explain writes text, no {format}: leave out one of the two.")
        print(view.explain(chosen))
    elif format == "table":
        view.table(chosen)
    else:
        print({"markdown": view.markdown, "json": view.as_json}[format](chosen))


# --- alexnet prepare, verify ------------------------------------------------------------------------------------------


def prepare(
    paths: Positional[Annotated[tuple[Path, ...], arg(metavar="SOURCE [SOURCE ...] STORE")]],
    size: int = paper.STORED_SIZE,
    resize: Literal["short-side", "squash"] = "short-side",
    hold_out: float = 0.1,
    seed: int = 0,
    strict: bool = False,
    workers: int | None = None,
) -> None:
    """Turn photos into a store that training reads: decoded, shrunk to squares, checked.

    A source is a folder with a folder for each class (which may lie in train/ and val/), the ILSVRC2012 tars as downloaded,
    WebDataset shards, image parquet files, or IDX files; several files may be named. Files that are no usable pictures (empty,
    truncated, of an unknown format, or with more than 89,478,485 pixels, which is taken for a decompression bomb) are skipped
    and listed. If interrupted, the same command goes on.

    Args:
        paths: the source (a folder, or files), then the store's folder.
        size: side of the stored squares in pixels, even. Training takes crops of at most this size.
        resize: scale the short side and keep the centre square, or squash the whole picture into the square.
        hold_out: share of each class that is kept for testing if the source has no split of its own.
        seed: which ones those are.
        strict: stop at the first file that is no usable picture, instead of listing it.
        workers: processes to decode with; all cores if not given.
    """
    from alexnet.data.prepare import prepare as run

    if len(paths) < 2:
        raise SourceError("prepare needs a source and a store: alexnet prepare photos/ store/")
    *source, store = paths
    _describe(run(source, store, size=size, resize=resize, hold_out=hold_out, seed=seed, strict=strict, workers=workers))


def verify(folder: Positional[Path], data: Path | None = None) -> None:
    """Compare a store with its checksums, or a run with its result.json. Exit status 1 if anything differs.

    A store is read whole. Of a run the files and weights are hashed and the held-out pictures are tested again; of a family
    every member.

    Args:
        folder: a store's, a run's or a family's folder.
        data: for a run, the store that it was trained on; where that lay in training if not given.
    """
    from alexnet.train.family import members
    from alexnet.train.run import CONFIG

    runs = [folder] if (folder / CONFIG).exists() else members(folder)
    if runs:
        _verify_runs(runs, data)
    elif data:
        raise CheckpointError(f"{folder} is no run's folder (it has no {CONFIG}): --data is for runs.")
    else:
        _verify_store(folder)


def _verify_runs(runs: list[Path], data: Path | None) -> None:
    from alexnet.train.result import read_result, verify_run

    damaged = False
    for run in runs:
        differences = verify_run(run, data)
        damaged |= bool(differences)
        for line in differences:
            print(f"{run}: {line}")
        if not differences:
            evaluation = read_result(run)["evaluation"]
            print(f"{run} is what it says: top-1 error {evaluation['top1_error']:.2%} on {evaluation['images']:,} pictures.")
    if damaged:
        raise SystemExit(1)


def _verify_store(store: Path) -> None:
    from alexnet.console import Meter
    from alexnet.data.store import Store

    opened = Store(store)
    with Meter("verifying", sum(map(len, opened.splits.values())), "images") as meter:
        damage = opened.verify(meter.add)
    for line in damage:
        print(line)
    if damage:
        raise SystemExit(1)
    print(f"{store} is whole: {', '.join(f'{len(split):,} {name}' for name, split in opened.splits.items())} pictures.")


def _describe(store: "Store") -> None:
    """What `prepare` made: counts for each class, and what was left out."""
    names = list(store.splits)
    per_class = [store.manifest["splits"][name]["per_class"] for name in names]
    if len(store.classes) <= MOST_CLASSES_SHOWN:
        rows = [[name, *counts] for name, *counts in zip(store.classes, *per_class, strict=True)]
        _print_table(["class", *names], [*rows, ["total", *map(sum, per_class)]])
    else:
        for name, counts in zip(names, per_class, strict=True):
            print(f"{name}: {sum(counts):,} pictures in {len(counts):,} classes, {min(counts):,} to {max(counts):,} in each")
    skipped = store.folder / "skipped.jsonl"
    if store.manifest["skipped"]:
        print(f"{store.manifest['skipped']:,} files skipped, listed in {skipped}:")
        for line in skipped.read_text().splitlines()[:10]:
            entry = json.loads(line)
            print(f"  {entry['file']!a}: {entry['reason']}")
    size = sum(split.records.nbytes for split in store.splits.values())
    print(f"{store.folder}: {store.size} x {store.size} pixels, {size / 1e6:,.1f} MB, fingerprint {store.fingerprint}")


def _print_table(header: list[str], rows: list[list[Any]]) -> None:
    """Left-aligned names, right-aligned numbers, on standard output."""
    texts = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for first, *rest in texts:
        print(first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)), sep="  ")


# --- alexnet train ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Training:
    """What `alexnet train RECIPE` takes."""

    data: Path
    """The store to train on, made by `alexnet prepare`."""
    out: Path
    """Folder for the run: configuration, log, checkpoints."""
    recipe: Recipe
    resume: bool = False
    """Go on from the last checkpoint in --out."""
    seeds: str | None = None
    """Train a family, one network for each of these seeds, such as 0..9 or 0,1,2, into seed0, seed1 ... of --out."""
    at_once: int = 1
    """Networks of a family that share a GPU; on a CPU they go one after another."""


@dataclass(frozen=True, kw_only=True)
class Ablating:
    """What `alexnet ablate NAME RECIPE` takes."""

    data: Path
    """The store to train on, made by `alexnet prepare`."""
    seeds: int
    """Networks on each side: seeds 0, 1, 2 ..., or from --seed on."""
    recipe: Recipe
    out: Path = Path("ablations")
    """Folder for all ablations with this recipe on this store, which share the standard side. Run again, it goes on."""
    other_lr: float | None = None
    """Learning rate of the changed side; the recipe's if not given."""
    training_error: float = paper.TANH_TRAINING_ERROR
    """Error to reach, where epochs are counted (tanh)."""


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What `alexnet doctor RECIPE` takes."""

    data: Path
    """The store to train on, made by `alexnet prepare`."""
    recipe: Recipe
    json_file: Annotated[Path | None, arg(name="json")] = None
    """Write the diagnosis there too."""


def _for_each_recipe(command: Any, **values: Any) -> Any:
    """One subcommand for each recipe, with that recipe's values as defaults."""
    return Union[  # noqa: UP007 - built from a table
        tuple(
            Annotated[command, subcommand(name, default=command(recipe=make(), **values), description=make.__doc__)]
            for name, make in RECIPES.items()
        )
    ]


if TYPE_CHECKING:
    TrainingChoice = Training
    AblationChoice = Ablating
    ExaminationChoice = Examination
else:
    TrainingChoice = _for_each_recipe(Training, data=tyro.MISSING, out=tyro.MISSING)
    AblationChoice = _for_each_recipe(Ablating, data=tyro.MISSING, seeds=tyro.MISSING)
    ExaminationChoice = _for_each_recipe(Examination, data=tyro.MISSING)


def doctor(command: ExaminationChoice) -> None:
    """Say before training whether a recipe can work on a store, and if not, why not. Exit status 1 if a cause was found."""
    from alexnet.data.store import Store
    from alexnet.train.doctor import examine
    from alexnet.train.run import write_json

    diagnosis = examine(command.recipe, Store(command.data))
    _print_diagnosis(diagnosis)
    if command.json_file:
        write_json(command.json_file, diagnosis.as_json())
    if diagnosis.causes:
        raise SystemExit(1)


def _print_diagnosis(diagnosis: "Diagnosis") -> None:
    rows = []
    for layer in diagnosis.layers:
        dead = "" if layer.dead is None else f"{layer.dead:.0%}"
        norms = [""] * 2 if layer.gradient is None else [f"{layer.gradient:.2g}", f"{layer.update:.1e}"]
        rows.append([layer.name, f"{layer.spread:.4f}", dead, *norms, layer.verdict])
    _print_table(["stage", "spread", "dead", "gradient", "update", "verdict"], rows)
    pictures, labels = diagnosis.pictures, diagnosis.labels
    print(f"Input: mean {pictures.mean:.2f}, deviation {pictures.deviation:.2f}")
    if labels.score is not None:
        print(
            f"Labels: thumbnails of {labels.pictures:,} pictures tell them {labels.score:.1f} standard deviations above chance"
        )
    print(f"First loss: {diagnosis.first_loss:.3f}, expected {diagnosis.expected_loss:.3f} and a little more")
    print(f"Trial: {' '.join(f'{loss:.3g}' for loss in diagnosis.trial)}")
    for cause in diagnosis.causes:
        print(f"{cause.name} ({cause.field}): {cause}")
    print(f"{'Not healthy' if diagnosis.causes else 'No known failure found'}, examined in {diagnosis.seconds:.1f} s.")


def train(command: TrainingChoice) -> None:
    """Train a network by a recipe: `alexnet train small-photos --data store --out run`. Any field can be changed."""
    from alexnet.data.store import Store
    from alexnet.train.loop import train as run

    if command.seeds is not None:
        _train_family(command, command.seeds)
    elif command.at_once != 1:
        raise RecipeError(f"at_once (={command.at_once}) is for several networks: name their --seeds.")
    else:
        trained = run(command.recipe, Store(command.data), command.out, command.resume)
        print(f"{command.out}: held-out top-1 error {trained.state['errors'][-1]:.2%} after {trained.state['epoch']} epochs.")


def _train_family(command: Training, seeds: str) -> None:
    from alexnet.data.store import Store
    from alexnet.train import record
    from alexnet.train.family import parse_seeds, train_family

    store, wanted = Store(command.data), parse_seeds(seeds)
    summary = train_family(command.recipe, store, command.out, wanted, command.resume, command.at_once)
    record.write_family(command.out, command.recipe, store, summary)
    rows = [[f"seed {row['seed']}", f"{row['top1_error']:.2%}", f"{row['seconds']:,.1f}"] for row in summary["members"]]
    deviation = summary["deviation_top1_error"]
    spread = f"{summary['mean_top1_error']:.2%}" + ("" if deviation is None else f" ± {deviation:.2%}")
    mean = [f"mean, n = {summary['n']}", spread, f"{summary['seconds_per_model']:,.1f}"]
    _print_table(["", "held-out top-1 error", "seconds a model"], [*rows, mean])
    print(f"{command.out / record.README}")


def ablate(name: Positional[str], command: AblationChoice) -> None:
    """Train pairs of networks that differ in one thing, and say what it is worth beside what the paper says.

    `alexnet ablate no-lrn small-photos --data store --seeds 5`; any field of the recipe can be changed. NAME is tanh, no-lrn,
    non-overlapping, one-tower, never-talk, no-dropout, no-augmentation, no-colour-noise, no-conv2 ... no-conv5, no-fc6, no-fc7,
    ten-views or five-nets. Without a recipe it is small-photos.

    The standard networks are shared by all ablations in one --out. The same command goes on where it was stopped.

    Args:
        name: what changes.
    """
    from alexnet.data.store import Store
    from alexnet.train import record
    from alexnet.train.ablate import Plan
    from alexnet.train.ablate import ablate as run

    plan = Plan(
        ablation=ablations.get(name), recipe=command.recipe, seeds=command.seeds, other_lr=command.other_lr,
        training_error=command.training_error,
    )  # fmt: skip
    store = Store(command.data)
    outcome = run(plan, store, command.out)
    for line in record.tell(outcome):
        print(line)
    print(record.write_ablation(outcome, store, command.out) / record.README)


# --- alexnet evaluate, report -----------------------------------------------------------------------------------------


def evaluate(
    runs: Positional[Annotated[tuple[Path, ...], arg(metavar="RUN [RUN ...]")]],
    data: Path,
    split: str | None = None,
    views: Literal[1, 10] = 1,
    engine: Engine = "auto",
    average: bool = False,
    fit: bool = False,
    json_file: Annotated[Path | None, arg(name="json")] = None,
    out: Path | None = None,
) -> None:
    """Test a network on the held-out pictures of a store: top-1 and top-5 error, per class, confusion matrix.

    Args:
        runs: a run's folder (its latest checkpoint), a .safetensors file, or what `alexnet export` wrote (.onnx, .xml);
            several, or a family's folder, to average.
        data: the store.
        split: which split; the held-out one if not given.
        views: 1 for the centre crop, 10 for the paper's corners, centre and mirrors.
        engine: torch, or openvino or onnxruntime (pip install 'alexnet[serve]'), which are faster on a CPU; the best if auto.
        average: average the probabilities of several networks, as the paper did.
        fit: fit the coefficients of the average on every second picture, and test on the others.
        json_file: write the result there too.
        out: folder for confusion.csv and confusion.png; the (first) folder named if not given.
    """
    from alexnet import engines, figures
    from alexnet.data.store import Store
    from alexnet.evaluate import evaluate_classifier
    from alexnet.train.run import write_json

    networks = _networks(runs, average, fit)
    if average:
        from alexnet.ensemble import evaluate_average

        together = evaluate_average([engines.load(one, engine) for one in networks], Store(data), split, views, fit)
        _print_average(together, networks)
        result, content = together.fitted or together.plain, together.as_json()
    else:
        result = evaluate_classifier(engines.load(networks[0], engine), Store(data), split, views)
        _print_evaluation(result)
        content = result.as_json()
    out = out or (runs[0] if runs[0].is_dir() else runs[0].parent)
    out.mkdir(parents=True, exist_ok=True)
    figures.confusion_csv(result, out / "confusion.csv")
    figures.confusion(result, out / "confusion.png")
    if json_file:
        write_json(json_file, content)
    print(f"Confusion matrix: {out / 'confusion.csv'} and {out / 'confusion.png'}")


def _networks(runs: tuple[Path, ...], average: bool, fit: bool) -> list[Path]:
    """The runs named, a family's folder standing for its members."""
    from alexnet.train.family import members

    found = [one for run in runs for one in members(run) or [run]]
    if not found:
        raise CheckpointError("evaluate needs a run: alexnet evaluate RUN --data STORE")
    if len(found) > 1 and not average:
        raise CheckpointError(f"evaluate takes one network, or several (={len(found)}) with --average.")
    if fit and not average:
        raise CheckpointError("fit finds the coefficients of an average: add --average and more runs.")
    return found


def _print_average(together: "Average", runs: list[Path]) -> None:
    coefficients = together.coefficients or [1 / len(runs)] * len(runs)
    rows = [[str(run), f"{share:.3f}", f"{one.top1_error:.2%}", f"{one.top5_error:.2%}"]
            for run, share, one in zip(runs, coefficients, together.alone, strict=True)]  # fmt: skip
    for name, result in (("plain average", together.plain), ("weighted average", together.fitted)):
        if result:
            rows.append([name, "", f"{result.top1_error:.2%}", f"{result.top5_error:.2%}"])
    _print_table([f"on {together.plain.images:,} pictures", "coefficient", "top-1 error", "top-5 error"], rows)


def _print_evaluation(result: "Evaluation") -> None:
    rows = result.as_json()["per_class"]
    shown = [row for row in rows if row["images"]]
    if len(shown) > MOST_CLASSES_SHOWN:
        shown = sorted(shown, key=lambda row: -row["top1_error"])[:MOST_CLASSES_SHOWN]
        print(f"The {MOST_CLASSES_SHOWN} classes with the most errors:")
    cells = [[row["class"], row["images"], f"{row['top1_error']:.1%}", f"{row['top5_error']:.1%}"] for row in shown]
    total = ["all", result.images, f"{result.top1_error:.2%}", f"{result.top5_error:.2%}"]
    _print_table(["class", "images", "top-1 error", "top-5 error"], [*cells, total])


def report(run: Positional[Path], data: Path, out: Path | None = None) -> None:
    """Write a page about a finished run: curves, filters, predictions, confusion matrix.

    Args:
        run: the run's folder.
        data: the store it was trained on.
        out: folder for the page; RUN/report if not given.
    """
    from alexnet import engines
    from alexnet import report as page
    from alexnet.data.store import Store
    from alexnet.evaluate import evaluate_classifier
    from alexnet.weights import native

    if not run.is_dir():
        raise CheckpointError(f"report needs a run's folder, with its log and configuration: {run} is none.")
    trained, store = native.load(run), Store(data)
    result = evaluate_classifier(engines.of(trained), store)
    print(page.write(out or run / "report", f"AlexNet on {data.name}", trained, store, result, run))


# --- alexnet predict --------------------------------------------------------------------------------------------------


def predict(
    run: Positional[Path],
    files: Positional[tuple[str, ...]],
    top: int = 5,
    views: Literal[1, 10] = 1,
    format: Literal["table", "jsonl", "csv"] = "table",
    sheet: Path | None = None,
    engine: Engine = "auto",
) -> None:
    """Classify pictures. Exit status 1 if any could not be read; the others are classified all the same.

    Args:
        run: a run's folder (its latest checkpoint), a .safetensors file, or what `alexnet export` wrote (.onnx, .xml).
        files: files, folders, globs, or - for a list on standard input.
        top: how many classes to name.
        views: 1 for the centre crop, 10 for the paper's corners, centre and mirrors.
        format: a line of text, of JSON or of CSV for each picture.
        sheet: draw the pictures with their five most likely classes into this PNG.
        engine: torch, or openvino or onnxruntime (pip install 'alexnet[serve]'), which are faster on a CPU; the best if auto.
    """
    from alexnet import engines, figures
    from alexnet.predict import Pace, expand
    from alexnet.predict import predict as classify

    if not files:
        raise SourceError("predict needs pictures: alexnet predict run cat.jpg (or a folder, a glob, or - for a list).")
    if top < 1:
        raise SourceError(f"top (={top}) must be at least 1.")
    if sheet and sheet.suffix.lower() != ".png":
        raise SourceError(f"sheet (={sheet}) must end in .png.")
    classifier = engines.load(run, engine)
    drawn: list[Prediction] = []
    unreadable = total = 0
    pace = Pace()
    for prediction, row in _rows(classify(classifier, expand(files), top=max(top, 5), views=views, pace=pace), format, top):
        total += 1
        if prediction.error:
            unreadable += 1
            print(f"alexnet: {prediction.path}: {prediction.error}", file=sys.stderr)
        elif sheet and len(drawn) < figures.SHEET_LIMIT:
            drawn.append(prediction)
        if row:
            print(row, flush=True)
    if drawn and sheet:
        figures.sheet(drawn, sheet)
        print(f"{sheet}: {len(drawn)} pictures", file=sys.stderr)
    if total >= MANY:
        print(pace.line(), file=sys.stderr)
    if not total:
        raise SourceError(f"no pictures in {', '.join(files)}.")
    if unreadable:
        raise SystemExit(1)


def _rows(predictions: "Iterator[Prediction]", format: str, top: int) -> "Iterator[tuple[Prediction, str]]":
    """Each prediction with its text, which names `top` classes; unreadable files have a line in JSON only."""
    if format == "csv":
        print("file,rank,class,probability")
    for prediction in predictions:
        if format == "jsonl":
            yield prediction, json.dumps(prediction.as_json(top))
        elif format == "csv":
            yield (
                prediction,
                "\n".join(
                    _csv_line(prediction.path, rank, name, f"{share:.6f}")
                    for rank, (name, share) in enumerate(prediction.top[:top], 1)
                ),
            )
        else:
            named = "  ".join(f"{name} {share:.1%}" for name, share in prediction.top[:top])
            yield prediction, f"{prediction.path}  {named}" if named else ""


def _csv_line(*cells: Any) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()


# --- alexnet weights, export, compare ---------------------------------------------------------------------------------


def import_weights(
    file: Positional[Path],
    out: Annotated[Path, arg(aliases=["-o"])] = Path("alexnet.safetensors"),
    variant: str | None = None,
    input_size: int | None = None,
    mean: Path | None = None,
    classes: Path | None = None,
) -> None:
    """Bring weights in from Caffe, torchvision, NumPy, ONNX or safetensors, with their preprocessing and class names.

    The format is recognised by content. Ends with a self-check: layers, dead kernels, and whether the weights look trained.

    Args:
        file: .caffemodel, .pth, .npy, .npz, .onnx, .safetensors, or a run's folder.
        out: the file to write.
        variant: which AlexNet it is, where the file does not tell: paper, code-2012, caffe, caffenet, owt or torchvision.
        input_size: side of the input in pixels, where the file does not tell; the variant's own if not given.
        mean: Caffe's mean.binaryproto.
        classes: text file with a class name a line, in the order of the outputs.
    """
    from alexnet.weights import check, importer, native

    if out.suffix != ".safetensors":
        raise CheckpointError(f"out (={out}) must end in .safetensors, the only format that holds all of it.")
    trained, foreign = importer.import_weights(file, variant, input_size, mean, classes)
    if out.exists() and out.samefile(native.find(file)):
        raise CheckpointError(f"out (={out}) is the file itself: name another with -o.")
    result = check.network(trained.model)
    native.save(out, trained)
    for line in (*importer.describe(trained, foreign), *result.lines()):
        print(line)
    for warning in result.warnings():
        print(f"alexnet: warning: {file}: {warning}", file=sys.stderr)
    print(f"{out}: {out.stat().st_size / 1e6:,.1f} MB")


def list_weights() -> None:
    """List the published weights that `alexnet weights pull` obtains: licence, size, expected accuracy."""
    from alexnet.weights import registry

    rows = registry.rows()
    cells = [
        [
            row["name"], row["variant"] or "-", f"{row['mb']:.1f}", row["top1"] or "-", row["top5"] or "-",
            "yes" if row["cached"] else "no", row["licence"],
        ]
        for row in rows
    ]  # fmt: skip
    _print_table(["name", "variant", "MB", "top-1", "top-5", "here", "licence"], cells)
    print("Accuracy in percent as published: ILSVRC2012's validation pictures, centre crop.")


def pull_weights(
    name: Positional[str],
    out: Annotated[Path | None, arg(aliases=["-o"])] = None,
    url: str | None = None,
) -> None:
    """Download published weights, compare their hash, and bring them in. Run again after a cut, it goes on.

    Args:
        name: as `alexnet weights list` says.
        out: the file to write; NAME.safetensors if not given.
        url: a mirror's address; the file must be the same to the bit.
    """
    from alexnet.weights import download, registry

    entry = registry.get(name)
    if out and entry.variant is None:
        raise CheckpointError(f"{name} is no network and stays where it is downloaded to: leave out -o.")
    file = download.pull(entry, url=url)
    if entry.variant is None:
        print(file)
        return
    mean = download.pull(entry.companion) if entry.companion else None
    import_weights(file, out or Path(f"{name}.safetensors"), entry.variant, mean=mean)


def verify_weights(file: Positional[Path]) -> None:
    """Say which published file this is, and check its weights. Exit status 1 if they do not look trained.

    Args:
        file: of any format that `alexnet weights import` reads; layers may be missing.
    """
    from alexnet.weights import importer, registry

    found = registry.verify(file)
    if found.entry:
        print(f"{file} is the published {found.entry.name!r} to the bit ({found.entry.licence}).")
    else:
        print(f"{file} is none of the published files: {found.bytes:,} bytes, SHA-256 {found.sha256}.")
    if found.entry and not found.entry.variant:
        return
    result = importer.check_file(file)
    for line in result.lines():
        print(line)
    for warning in result.warnings():
        print(f"alexnet: warning: {file}: {warning}", file=sys.stderr)
    if not result.looks_trained:
        raise SystemExit(1)


WEIGHTS: dict[str, Any] = {
    "import": import_weights, "list": list_weights, "pull": pull_weights, "verify": verify_weights,
}  # fmt: skip

if TYPE_CHECKING:
    WeightsChoice = Any
else:
    WeightsChoice = Union[  # noqa: UP007 - built from a table
        tuple(Annotated[Any, subcommand(name, constructor=action)] for name, action in WEIGHTS.items())
    ]


def weights(action: WeightsChoice) -> None:
    """Bring weights in from other programs, obtain published ones, check files."""


def export(
    checkpoint: Positional[Path],
    to: Literal["safetensors", "torchvision", "caffe", "npy", "onnx", "openvino"],
    out: Annotated[Path | None, arg(aliases=["-o"])] = None,
    precision: Literal["fp32", "int8"] = "fp32",
    with_preprocessing: bool = False,
    data: Path | None = None,
    allow_loss: bool = False,
) -> None:
    """Write a network in another program's format.

    Args:
        checkpoint: a run's folder (its latest checkpoint), or a .safetensors file.
        to: the format.
        out: the file; beside the checkpoint if not given.
        precision: int8 is smaller and faster; it is calibrated and tested on --data.
        with_preprocessing: put everything before and after the network into the graph: pixels in, probabilities out.
        data: the store for int8.
        allow_loss: write int8 even if it loses more than one point of top-1.
    """
    from alexnet import export as exporting
    from alexnet.data.store import Store
    from alexnet.weights import native

    trained = native.load(checkpoint)
    path = out or exporting.destination(checkpoint, to)
    store = Store(data) if data else None
    lines = exporting.export(
        trained, to, path, int8=precision == "int8", with_preprocessing=with_preprocessing, store=store, allow_loss=allow_loss
    )
    for line in lines:
        print(line)
    written = path.stat().st_size + (path.with_suffix(".bin").stat().st_size if to == "openvino" else 0)
    print(f"{path}: {trained.model.variant.name}, {written / 1e6:,.1f} MB")


def compare(first: Positional[str], second: Positional[str], weights: Path, image: Path) -> None:
    """Show how far two variants are apart on one picture with the same weights, stage by stage, and which field is the cause.

    Args:
        first: a variant: paper, code-2012, caffe, caffenet, owt or torchvision.
        second: another.
        weights: of any format that `alexnet weights import` reads, or a run's folder.
        image: the picture.
    """
    from alexnet.data.image import Unreadable
    from alexnet.inspect import compare as comparing

    try:
        stages, causes = comparing.compare(comparing.load(weights, first), first, second, image.read_bytes())
    except Unreadable as reason:
        raise SourceError(f"{image} cannot be read: {reason}.") from reason
    rows = [[stage.name, stage.remark or f"{stage.distance:.3g}"] for stage in stages]
    _print_table(["stage", "relative L2 distance"], rows)
    print()
    for line in comparing.explain(causes, first, second):
        print(line)


# --- alexnet demo -----------------------------------------------------------------------------------------------------


def demo(out: Path = Path("demo"), epochs: int | None = None) -> None:
    """Get Fashion-MNIST, train on it, test it and write a report. The last line is one JSON object.

    Args:
        out: folder for the store, the run and the report; run again, it goes on where it was stopped.
        epochs: of the recipe laptop; its own number if not given.
    """
    from alexnet.demo import demo as run

    print(json.dumps(run(out, epochs)))


VERBS: dict[str, Any] = {
    "summary": summary,
    "prepare": prepare,
    "verify": verify,
    "doctor": doctor,
    "train": train,
    "ablate": ablate,
    "evaluate": evaluate,
    "predict": predict,
    "weights": weights,
    "export": export,
    "compare": compare,
    "report": report,
    "demo": demo,
}


def _check_words(arguments: list[str]) -> list[str]:
    """Refuse an unknown verb, recipe or ablation in one line; of options, tyro names the nearest.

    Returns:
        The arguments, with the default recipe of `ablate` where none was named.
    """
    verb, *rest = arguments or ["--help"]
    if not verb.startswith("-") and verb not in VERBS:
        raise RecipeError(f"there is no verb {verb!r}: {nearest(verb, VERBS)}")
    if verb in ("doctor", "train") and not {"-h", "--help"} & set(rest[:1]) and (not rest or rest[0] not in RECIPES):
        if not rest or rest[0].startswith("-"):
            raise RecipeError(f"{verb} needs a recipe first, as in `alexnet {verb} laptop ...`. Known: {', '.join(RECIPES)}.")
        recipes.get(rest[0])  # says what is known
    if verb == "weights" and rest and not rest[0].startswith("-") and rest[0] not in WEIGHTS:
        raise RecipeError(f"there is no action {rest[0]!r} of weights: {nearest(rest[0], WEIGHTS)}")
    if verb != "ablate" or {"-h", "--help"} & set(rest[:1]):
        return arguments
    if not rest or rest[0].startswith("-"):
        raise RecipeError(f"ablate needs a name first, as in `alexnet ablate no-lrn ...`. Known: {', '.join(ABLATIONS)}.")
    ablations.get(rest[0])
    if len(rest) > 1 and not rest[1].startswith("-"):
        recipes.get(rest[1])
        return arguments
    return [verb, rest[0], ABLATION_RECIPE, *rest[1:]]


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `alexnet`."""
    # PyTorch's CPU threads spin while they wait for each other. Where another program wants one of the two cores, that makes
    # training 30 times slower (26 against 794 images/s); sleeping costs 12 % where none does (docs/log.md).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # a file's name goes out with the bytes that it has
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        arguments = _check_words(arguments)
        tyro.extras.subcommand_cli_from_dict(
            VERBS,
            prog="alexnet",
            description="AlexNet: train it, test it, use it, look inside.",
            args=arguments,
            config=(OmitArgPrefixes, OmitSubcommandPrefixes),
        )
    except AlexNetError as error:
        print(f"alexnet: {error}", file=sys.stderr)
        raise SystemExit(130 if isinstance(error, Interrupted) else 2) from None
    except KeyboardInterrupt:
        print("alexnet: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:  # `alexnet predict ... | head`
        sys.stderr.close()
        raise SystemExit(141) from None
    except OSError as error:  # a folder that may not be written, a file in the place of a folder
        if error.filename is None:
            raise
        print(f"alexnet: {error.filename}: {error.strerror}", file=sys.stderr)
        raise SystemExit(2) from None
