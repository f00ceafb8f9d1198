"""`alexnet export`: write a network in another program's format."""

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from alexnet.cli.next_step import PHOTO, next_step
from alexnet.cli.options import DataIfAny
from alexnet.cli.tables import print_line


def export(
    checkpoint: Positional[Annotated[Path, arg(metavar="RUN")]],
    to: Literal["safetensors", "torchvision", "caffe", "npy", "onnx", "openvino"],
    out: Annotated[Path | None, arg(aliases=["-o"])] = None,
    precision: Literal["fp32", "int8"] = "fp32",
    with_preprocessing: bool = False,
    data: DataIfAny = None,
    allow_loss: bool = False,
    head_only: bool = False,
) -> None:
    """Write a network in another program's format.

    Args:
        checkpoint: a run's folder (its latest checkpoint), or a .safetensors file.
        to: the format.
        out: the file to write; next to the checkpoint by default.
        precision: int8 is smaller and faster; it is calibrated and tested on --data.
        with_preprocessing: include preprocessing and softmax in the graph: pixels in, probabilities
            out.
        data: the store that int8 is calibrated and tested on.
        allow_loss: write int8 even if it loses more than one point of top-1.
        head_only: of a fine-tuned run, write only the layers that were trained (safetensors);
            `alexnet weights import` puts them back onto the weights that they were trained on.
    """
    from alexnet import export as exporting
    from alexnet.data.store import Store
    from alexnet.weights import native

    if head_only:
        _export_head(checkpoint, to, out)
        return
    int8 = precision == "int8"
    path = out or exporting.destination(checkpoint, to, int8, with_preprocessing)
    exporting.check_destination(checkpoint, path)
    trained = native.load(checkpoint)
    store = Store(data) if data else None
    lines = exporting.export(
        trained, to, path, int8=int8, with_preprocessing=with_preprocessing, store=store, allow_loss=allow_loss
    )
    for line in lines:
        print_line(line)
    written = path.stat().st_size + (path.with_suffix(".bin").stat().st_size if to == "openvino" else 0)
    print_line(f"{path}: {trained.model.variant.name}, {written / 1e6:,.1f} MB")
    predicts = to in ("safetensors", "onnx", "openvino") and not with_preprocessing
    next_step(*(["predict", path, PHOTO] if predicts else ["weights", "verify", path]))


def _export_head(run: Path, to: str, out: Path | None) -> None:
    from alexnet import export as exporting
    from alexnet.errors import UsageError
    from alexnet.run_folder import is_run
    from alexnet.train.history import read_config
    from alexnet.variants import LAYER_NAMES
    from alexnet.weights import native, trained_part

    if to != "safetensors":
        raise UsageError(f"--head-only works with --to safetensors only, not {to}.")
    config = read_config(run) if is_run(run) else None
    if config is None or config.tuned is None or config.recipe.lr_factors is None:
        raise UsageError(f"--head-only is for runs of `alexnet train finetune`, and {run} is not one: drop it.")
    layers = tuple(name for name, factor in zip(LAYER_NAMES, config.recipe.lr_factors, strict=True) if factor)
    path = out or run / "head.safetensors"
    exporting.check_destination(run, path)
    count = trained_part.save(path, native.load(run), layers)
    print_line(f"{path}: {', '.join(layers)}, {count:,} parameters, {path.stat().st_size / 1e6:,.1f} MB")
    next_step("weights", "import", path, "--base", config.tuned.file, "-o", "whole.safetensors")
