"""Write a checkpoint in other programs' formats.

What a format cannot hold is refused with the reason, never approximated: towers in torchvision's
layout, a tower's own normalisation in Caffe. safetensors and ONNX hold every variant with its
classes and preprocessing; Caffe's files come with their prototxt and mean; torchvision's and
NumPy's hold tensors alone, and the export says what must be remembered with them.
"""

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Literal, get_args

from alexnet import engines, intervals
from alexnet.arguments import as_path, expect_kind
from alexnet.data.store import Store
from alexnet.errors import CheckpointError, OutputError, UsageError
from alexnet.evaluate import Evaluation, evaluate_classifier, fitting
from alexnet.files import make_ready, writing
from alexnet.quantise import has_vnni, quantise
from alexnet.trained import Trained
from alexnet.weights import native
from alexnet.weights.formats import caffe_write, npy, onnx_graph, torchvision

if TYPE_CHECKING:
    import onnx

Target = Literal["safetensors", "torchvision", "caffe", "npy", "onnx", "openvino"]
ENDINGS = {
    "safetensors": ".safetensors",
    "torchvision": ".pth",
    "caffe": ".caffemodel",
    "npy": ".npy",
    "onnx": ".onnx",
    "openvino": ".xml",
}
GRAPHS = ("onnx", "openvino")
#: Points of top-1 that int8 may lose before the export is refused.
MOST_LOST = 0.01


def destination(source: Path, target: Target, int8: bool = False, with_preprocessing: bool = False) -> Path:
    """The default path of an export: next to the checkpoint, or in the run's folder."""
    stem = source / "alexnet" if source.is_dir() else source.with_suffix("")
    name = stem.name + "-int8" * int8 + "-pixels" * with_preprocessing
    path = stem.with_name(name + ENDINGS[target])
    return path.with_name(f"{name}-plain{ENDINGS[target]}") if path == source else path


def check_destination(source: Path, out: Path) -> None:
    """Make the folder of a file to come; refuse to overwrite the source or a run's checkpoint,
    from which training goes on.

    Raises:
        OutputError: `out` is one of them, or cannot be written.
    """
    checkpoint = native.find(source)
    make_ready(out)
    if not out.exists():
        return
    if out.samefile(checkpoint):
        raise OutputError(f"out (={out}) is the file that is being exported: choose another with -o.")
    if native.is_ours(out) and native.goes_on(out):
        raise OutputError(f"out (={out}) is a run's checkpoint, which is needed to resume it: choose another file with -o.")


def export(
    trained: Trained,
    target: Target,
    out: str | Path,
    *,
    int8: bool = False,
    with_preprocessing: bool = False,
    store: Store | None = None,
    allow_loss: bool = False,
) -> list[str]:
    """Write a network in another format.

    Args:
        target: the format.
        out: the file; for OpenVINO the .xml, its .bin is written next to it; for Caffe the
            .caffemodel, its .prototxt and mean too.
        int8: onnx and openvino only; `store` calibrates and tests it.
        with_preprocessing: onnx and openvino only; pixels in, probabilities out.
        allow_loss: write an int8 network that lost more than a point of top-1 all the same.

    Returns:
        what the user should know, in lines.

    Raises:
        UsageError: options that do not go together.
        OutputError: `out` has another ending, or cannot be written.
        CheckpointError: the format cannot hold the network, int8 lost too much, a library is
            missing, arguments of other types.
    """
    expect_kind(trained, "trained", Trained)
    if trained.missing:
        raise CheckpointError(f"the network lacks {', '.join(trained.missing)}, and only whole ones can be exported.")
    expect_kind(store, "store", Store, NoneType)
    out = as_path(out, "out")
    _check(target, out, int8, with_preprocessing, store, allow_loss)
    if target in GRAPHS:
        model, lines = _quantised(trained, store, allow_loss) if int8 and store else (onnx_graph.to_onnx(trained), [])
        if with_preprocessing:
            model = onnx_graph.with_both_ends(model, trained.preprocessing).model
        (_write_onnx if target == "onnx" else _write_openvino)(out, model)
        return lines
    return _write_weights(trained, target, out)


def _check(target: Target, out: Path, int8: bool, with_preprocessing: bool, store: Store | None, allow_loss: bool) -> None:
    if target not in get_args(Target):
        raise UsageError(f"unknown target {target!r}: choose from {', '.join(get_args(Target))}.")
    if out.suffix != ENDINGS[target]:
        raise OutputError(f"out (={out}) must end in {ENDINGS[target]} for {target}.")
    for asked, what in ((int8, "--precision int8"), (with_preprocessing, "--with-preprocessing")):
        if asked and target not in GRAPHS:
            raise UsageError(f"{what} works with --to onnx and --to openvino only, not {target}.")
    if store is not None and not int8:
        raise UsageError(
            "--data is used only with --precision int8, for calibration and testing: add that option, or drop --data."
        )
    if allow_loss and not int8:
        raise UsageError("--allow-loss is used only with --precision int8: drop it, as no other export loses accuracy.")
    if int8 and store is None:
        raise UsageError("--precision int8 needs pictures for calibration and testing: name a store with --data.")


def _write_weights(trained: Trained, target: Target, out: Path) -> list[str]:
    variant, tensors, mean = trained.model.variant, trained.model.state_dict(), trained.preprocessing.mean
    match target:
        case "safetensors":
            native.save(out, replace(trained, extra={}, state={}))
            return []
        case "caffe":
            caffe_write.write(out, variant, tensors, mean, trained.preprocessing.scale)
            return _for_caffe(trained, out)
        case "torchvision":
            torchvision.write(out, variant, tensors)
        case "npy":
            npy.write(out, variant, tensors)
    preprocessing = trained.preprocessing
    colour = ", ".join(f"{value:.2f}" for value in mean.mean((1, 2)).tolist())
    scale = ", ".join(f"{value:.5f}" for value in preprocessing.scale.tolist())
    return [
        f"the file holds only tensors. Prepare its pictures like this: {preprocessing.resize} to "
        f"{preprocessing.stored_size} pixels by a filter that is {onnx_graph.FILTER}, centre "
        f"{preprocessing.input_size}, {'BGR' if preprocessing.bgr else 'RGB'}, 0-255 minus "
        f"{'the mean image, on average' if mean.shape[1] > 1 else 'the mean'} ({colour}; R, G, B) "
        f"times ({scale}).",
    ]


def _for_caffe(trained: Trained, out: Path) -> list[str]:
    """Notes on what was changed for Caffe, and what its files cannot hold."""
    variant, resize = trained.model.variant, trained.preprocessing.resize
    turned = "conv1's input channels were reversed: Caffe's pictures are BGR, this network's RGB"
    squashed = f"Caffe's files do not say how pictures are brought to size: {resize} here, and squash for whoever imports them"
    return [
        f"next to it: {out.with_suffix('.prototxt').name}, the network description for Caffe",
        *([turned] if variant.channel_order == "RGB" else []),
        *([squashed] if resize != "squash" else []),
    ]


def _quantised(trained: Trained, store: Store, allow_loss: bool) -> "tuple[onnx.ModelProto, list[str]]":
    """The int8 network, tested against the float32 one on the store's held-out pictures."""
    float32 = engines.of(trained)
    store, _ = fitting([float32], store)
    model = quantise(trained, store)
    engine = engines.choose("auto", engines.SERVING)
    int8 = engines.Classifier(
        engines.STARTERS[engine](model.SerializeToString()), trained.classes, trained.preprocessing, engine
    )
    before, after = evaluate_classifier(float32, store), evaluate_classifier(int8, store)
    line = (
        f"top-1 error on {before.images:,} held-out pictures: {_error(before)} in float32, {_error(after)} in int8 ({engine})"
    )
    lost = after.top1_error - before.top1_error
    if lost > MOST_LOST and not allow_loss:
        raise CheckpointError(
            f"{line}: int8 lost {100 * lost:.2f} points, more than {100 * MOST_LOST:g}. Nothing "
            "was written; add --allow-loss to write it anyway."
        )
    bits = "" if has_vnni() else "the weights have 7 bits, as this processor lacks VNNI"
    few = intervals.warning(before.images)
    return model, [line, *([f"Warning: {few}"] if few else []), *([bits] if bits else [])]


def _error(result: Evaluation) -> str:
    return f"{intervals.percent(result.top1_error)} (95% interval {intervals.interval(result.wrong, result.images)})"


def _write_onnx(out: Path, model: "onnx.ModelProto") -> None:
    with writing(out) as temporary:
        temporary.write_bytes(model.SerializeToString())


def _write_openvino(out: Path, model: "onnx.ModelProto") -> None:
    """OpenVINO's two files, .xml and .bin, without its default of float16."""
    core = engines.openvino_core()  # says what to do if there is none
    import openvino

    network = core.read_model(model.SerializeToString())
    network.set_rt_info(onnx_graph.entry(model), [onnx_graph.KEY])
    weights = out.with_suffix(".bin")
    with writing(out) as temporary, tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.stem}.") as folder:
        openvino.save_model(network, Path(folder, out.name), compress_to_fp16=False)
        os.replace(Path(folder, weights.name), weights)  # the .xml comes last: it is what others open
        os.replace(Path(folder, out.name), temporary)
