"""`alexnet weights`: import weights of other programs, download published ones, check files."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Union

from tyro.conf import Positional, arg, subcommand

from alexnet.cli.next_step import PHOTO, next_step
from alexnet.cli.tables import print_line, print_path, print_table
from alexnet.console import say
from alexnet.errors import OutputError, UsageError


def import_weights(
    file: Positional[Annotated[Path, arg(metavar="FILE")]],
    out: Annotated[Path, arg(aliases=["-o"])] = Path("alexnet.safetensors"),
    variant: str | None = None,
    input_size: int | None = None,
    mean: Path | None = None,
    classes: Path | None = None,
    base: Path | None = None,
) -> None:
    """Import weights from Caffe, torchvision, NumPy, ONNX or safetensors, with preprocessing and
    classes.

    The format is recognised from the file's content. The weights are then checked: layers, dead
    kernels, and whether they look trained. Of a file that lacks layers, those that are there are
    imported: filters, explain and train finetune take the result, predict does not.

    Args:
        file: .caffemodel, .pth, .npy, .npz, .onnx, .safetensors, or a run's folder.
        out: the file to write.
        variant: which AlexNet it is, if the file does not say so: paper, code-2012, caffe,
            caffenet, owt or torchvision.
        input_size: side of the input in pixels, if the file does not say so; the variant's own by
            default.
        mean: Caffe's mean.binaryproto.
        classes: text file with one class name per line, in the order of the outputs.
        base: the weights that a file from `alexnet export --head-only` was trained on.
    """
    from alexnet.export import check_destination
    from alexnet.weights import check, importer, native

    if out.suffix != ".safetensors":
        raise OutputError(
            f"out (={out}) must end in .safetensors, the only format that holds weights, preprocessing and class names."
        )
    check_destination(file, out)
    if base:
        _join(file, base, out, variant)
        return
    trained, foreign = importer.import_weights(file, variant, input_size, mean, classes, partial=True)
    result = check.part(trained)
    native.save(out, trained)
    for line in (*importer.describe(trained, foreign), *result.lines()):
        print_line(line)
    for warning in result.warnings():
        say(f"Warning: {file}: {warning}")
    print_line(f"{out}: {out.stat().st_size / 1e6:,.1f} MB")
    if trained.missing:
        say(f"{out} holds a part of a network: {', '.join(trained.missing)} are missing, so it cannot classify pictures yet.")
        next_step("train", "finetune", "--from", out, "--data", "store", "--out", "run")
        return
    next_step(*(["predict", out, PHOTO] if result.looks_trained else ["weights", "list"]))


def _join(file: Path, base: Path, out: Path, variant: str | None) -> None:
    """Trained layers on their base, as one file."""
    from alexnet.export import check_destination
    from alexnet.weights import importer, native

    check_destination(base, out)
    trained = importer.join(file, base, variant)
    native.save(out, trained)
    print_line(f"{out}: {file} on {base}, {len(trained.classes)} classes, {out.stat().st_size / 1e6:,.1f} MB")
    next_step("predict", out, PHOTO)


def list_weights() -> None:
    """List the published weights that `weights pull` can download: licence, size and accuracy."""
    from alexnet.published import registry

    rows = registry.rows()
    cells = [
        [
            row["name"],
            row["variant"] or "-",
            f"{row['mb']:.1f}",
            row["top1"] or "-",
            row["top5"] or "-",
            "yes" if row["cached"] else "no",
            row["licence"],
        ]
        for row in rows
    ]
    print_table(["name", "variant", "MB", "top-1", "top-5", "here", "licence"], cells)
    print("Accuracy in percent, as published: ILSVRC2012 validation pictures, centre crop.")
    next_step("weights", "pull", next((row["name"] for row in rows if row["variant"] and not row["cached"]), rows[0]["name"]))


def pull_weights(
    name: Positional[Annotated[str, arg(metavar="NAME")]],
    out: Annotated[Path | None, arg(aliases=["-o"])] = None,
    url: str | None = None,
) -> None:
    """Download published weights, verify their hash, and import them. The same command continues
    after an interruption.

    Args:
        name: one of those that `alexnet weights list` shows.
        out: the file to write; NAME.safetensors by default.
        url: address of a mirror; the file there must be identical.
    """
    from alexnet.published import download, registry

    entry = registry.get_published(name)
    if out and entry.variant is None:
        raise UsageError(f"{name} is not a network: it is downloaded but not imported, so drop -o.")
    file = download.pull(entry, url=url)
    if entry.variant is None:
        print_path(file)
        next_step("weights", "import", "FILE.caffemodel", "--mean", file)
        return
    mean = download.pull(entry.companion) if entry.companion else None
    import_weights(file, out or Path(f"{name}.safetensors"), entry.variant, mean=mean)


def verify_weights(file: Positional[Annotated[Path, arg(metavar="FILE")]]) -> None:
    """Say whether a file is one of the published ones, and check its weights.

    The exit status is 1 if they do not look trained.

    Args:
        file: in any format that `alexnet weights import` reads; layers may be missing.
    """
    from alexnet.published import registry
    from alexnet.weights import importer, native

    file = native.find(file)
    verified = registry.verify(file)
    if verified.entry:
        print_line(f"{file} is identical to the published {verified.entry.name!r} (licence: {verified.entry.licence}).")
    else:
        print_line(f"{file} is not one of the published files: {verified.bytes:,} bytes, SHA-256 {verified.sha256}.")
    if verified.entry and not verified.entry.variant:
        next_step("weights", "import", "FILE.caffemodel", "--mean", file)
        return
    result = importer.check_file(file)
    for line in result.lines():
        print_line(line)
    for warning in result.warnings():
        say(f"Warning: {file}: {warning}")
    if not result.looks_trained:
        next_step("weights", "list")
        raise SystemExit(1)
    if result.spread is None:  # layers are missing
        next_step("filters", file, "-o", "filters.png")
    elif file.suffix == ".safetensors" and native.is_ours(file):
        next_step("predict", file, PHOTO)
    else:
        next_step("weights", "import", file, "-o", f"{file.stem}.safetensors")


WEIGHTS: dict[str, Any] = {
    "import": import_weights,
    "list": list_weights,
    "pull": pull_weights,
    "verify": verify_weights,
}

if TYPE_CHECKING:
    WeightsChoice = Any
else:
    WeightsChoice = Union[  # noqa: UP007 - built from a table
        tuple(Annotated[Any, subcommand(name, constructor=action)] for name, action in WEIGHTS.items())
    ]


def weights(action: WeightsChoice) -> None:
    """Import weights of other programs, download published ones, check files."""
