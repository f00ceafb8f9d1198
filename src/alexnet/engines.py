"""Inference engines: PyTorch, OpenVINO or ONNX Runtime.

An engine takes a batch of pictures and gives logits. PyTorch is always there. OpenVINO and ONNX
Runtime come with the extra `serve` (`pip install 'alexnet[serve]'`) and run the network that
`weights/formats/onnx_graph.py` writes: the same layers, chosen and fused by a compiler that knows
inference only. Where several are installed, the default is the fastest that was measured
(records/), OpenVINO; on a GPU it is PyTorch.

A `Classifier` is an engine with the class names and the preprocessing that belong to its weights.
`load` makes one from a run, from our own file, or from a file that `alexnet export` wrote
(.onnx, .xml), also in int8.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from alexnet import kernels
from alexnet.arguments import as_path
from alexnet.console import say
from alexnet.data.preprocessing import Preprocessing
from alexnet.devices import cores
from alexnet.errors import CheckpointError
from alexnet.fused import Fused, unknown
from alexnet.memory import keep_freed
from alexnet.model import AlexNet
from alexnet.trained import Trained
from alexnet.weights import native
from alexnet.weights.formats import onnx_graph

Engine = Literal["auto", "openvino", "onnxruntime", "torch"]
Network = Callable[[Tensor], Tensor]  # (N, 3, K, K) float32 to (N, classes) logits

#: In the order of preference on a CPU.
SERVING = ("openvino", "onnxruntime")
EXPORTED = (".onnx", ".xml")
SAME_LOGITS = 1e-2  # of their norm; both may convolve in tf32, which is 1e-3 away


@dataclass(frozen=True)
class Classifier:
    """Turns pictures into class scores.

    Attributes:
        network: the engine's.
        classes: names in the order of the outputs.
        engine: "torch", "openvino" or "onnxruntime".
    """

    network: Network
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    engine: str = "torch"


def load(path: str | Path, engine: Engine = "auto") -> Classifier:
    """A classifier from a run's folder, a .safetensors file, or what `export` wrote.

    Raises:
        CheckpointError: missing, damaged, none of ours, or the engine is not installed.
    """
    path = as_path(path, "path")
    if path.suffix in EXPORTED and path.is_file():
        return _exported(path, engine)
    chosen = _for_network(engine)
    device = "cuda" if chosen == "torch" and torch.cuda.is_available() else "cpu"
    return of(native.load(path, device), chosen)


def of(trained: Trained, engine: Engine | str = "torch") -> Classifier:
    """A classifier from a network in memory.

    Raises:
        CheckpointError: it is a part of one, or the engine is not installed.
    """
    if trained.missing:
        raise CheckpointError(f"the network lacks {', '.join(trained.missing)}, so it cannot classify: train them first.")
    chosen = _for_network(engine)
    start = STARTERS.get(chosen)
    network = start(onnx_graph.to_onnx(trained).SerializeToString()) if start else fastest(trained.model)
    return Classifier(network, trained.classes, trained.preprocessing, chosen)


def _for_network(engine: Engine | str) -> str:
    """The engine for a network in memory. All but PyTorch are handed it as ONNX,
    which takes that package too.
    """
    return choose("torch" if engine == "auto" and not find_spec("onnx") else engine)


def _exported(path: Path, engine: Engine) -> Classifier:
    """A classifier from a file that `export` wrote without preprocessing in the graph."""
    chosen = choose(engine, ("openvino",) if path.suffix == ".xml" else SERVING)
    text, entry = _openvino_header(path) if path.suffix == ".xml" else _onnx_header(path)
    if not text:
        raise CheckpointError(f"{path} lacks alexnet's metadata: convert it with `alexnet weights import` and use the result.")
    if entry != onnx_graph.X:
        raise CheckpointError(
            f"{path} has its preprocessing in the graph: for `predict` and `evaluate`, export without --with-preprocessing."
        )
    try:
        _, classes, preprocessing = onnx_graph.from_header(text)
        return Classifier(STARTERS[chosen](path), classes, preprocessing, chosen)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except Exception as error:  # a damaged graph; each engine has errors of its own
        raise CheckpointError(f"{path} is damaged: {chosen} cannot run it ({_last_line(error)}).") from error


def _last_line(error: Exception) -> str:
    """Engines put where in their own source it happened before what happened."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1][:200]


def _onnx_header(path: Path) -> tuple[str | None, str]:
    library = onnx_graph.library()
    try:
        model = library.load(path, load_external_data=False)
    except Exception as error:  # protobuf's DecodeError, which is no subclass of anything
        raise CheckpointError(f"{path} is damaged or not an ONNX file ({error}): export it again.") from error
    return onnx_graph.entry(model), model.graph.input[0].name if model.graph.input else ""


def _openvino_header(path: Path) -> tuple[str | None, str]:
    try:
        model = openvino_core().read_model(path)
    except RuntimeError as error:
        weights = path.with_suffix(".bin")
        reason = _last_line(error) if weights.exists() else f"its weights, {weights.name}, must be in the same folder"
        raise CheckpointError(f"{path} is damaged or not an OpenVINO model ({reason}).") from error
    text = model.get_rt_info([onnx_graph.KEY]).astype(str) if model.has_rt_info([onnx_graph.KEY]) else None
    return text, model.inputs[0].get_any_name()


def choose(engine: Engine | str, among: tuple[str, ...] = (*SERVING, "torch")) -> str:
    """Choose the engine.

    Raises:
        CheckpointError: it is not installed, or cannot run the file.
    """
    there = [name for name in among if find_spec(name)]
    if engine == "auto":
        if not there:
            raise CheckpointError(
                f"this file needs {' or '.join(among)}, which is not installed: pip install 'alexnet[serve]'."
            )
        return "torch" if torch.cuda.is_available() and "torch" in there else there[0]
    if engine not in among:
        raise CheckpointError(f"engine (={engine!r}) cannot run this kind of file: use {' or '.join(among)}.")
    if engine not in there:
        raise CheckpointError(f"engine (={engine!r}) is not installed: pip install 'alexnet[serve]', or use --engine torch.")
    return engine


def eager(model: nn.Module) -> Network:
    """PyTorch, as it is. Channels last is the layout that its convolutions want."""
    return lambda x: model(x.contiguous(memory_format=torch.channels_last))


def fastest(model: AlexNet) -> Network:
    """PyTorch; on an NVIDIA GPU by way of the kernels that training has, once these agree with
    PyTorch on the first batch.
    """
    plain = eager(model)
    if model.device.type == "cpu":
        keep_freed()
    if unknown(model.variant) or kernels.lacking(model.device):
        return plain
    return trusted(Fused(model), plain)


def trusted(fused: Network, plain: Network) -> Network:
    """`fused`, if its first answer is that of `plain`, and else `plain`; once for each size of
    batch, rounded up to a power of two, as kernels are chosen by size."""
    chosen: dict[int, Network] = {}

    def network(x: Tensor) -> Tensor:
        size = (len(x) - 1).bit_length()
        if size in chosen:
            return chosen[size](x)
        expected = plain(x)
        problem = _differs(fused, x, expected)
        if problem:
            say(
                f"The GPU kernels are not used for {len(x)} pictures, as they give wrong results "
                f"here: {problem}. Please report it."
            )
        chosen[size] = plain if problem else fused
        return expected

    return network


def _differs(fused: Network, x: Tensor, expected: Tensor) -> str | None:
    """What is wrong with the kernels' logits, in a few words. Numbers that are not
    finite are the network's own.
    """
    try:
        actual = fused(x)
        if torch.equal(actual.isfinite(), expected.isfinite()):
            actual, expected = (logits.nan_to_num(0, 0, 0) for logits in (actual, expected))
        distance, size = float((actual - expected).norm()), float(expected.norm())
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:
        return kernels.failure(x.device, error, "set CUDA_VISIBLE_DEVICES= to compute on the CPU")
    return None if distance <= SAME_LOGITS * size else f"their logits are {distance / max(size, 1e-30):.1%} from PyTorch's"


@cache
def openvino_core() -> Any:
    """OpenVINO's one Core of this process.

    A Core that compiles gives the thread a new stack for signals and, when it goes, puts back the
    one that it found. Of two, the second puts back the first one's, which is no more: the next
    Ctrl-C ends in a segmentation fault (OpenVINO 2026.4).

    Raises:
        CheckpointError: it is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise CheckpointError("OpenVINO's format needs the package openvino: pip install 'alexnet[serve]'.") from error
    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})  # if a mapped file is cut while the network computes, the process ends
    return core


def start_openvino(model: bytes | Path) -> Network:
    """OpenVINO on the CPU, in float32: left alone it would compute in bfloat16
    where the processor has it.

    Its threads are not bound to cores: bound ones wait where another program has the core (7.9
    against 7.0 ms an image).
    """
    core = openvino_core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": cores(), "ENABLE_CPU_PINNING": False}
    request = core.compile_model(core.read_model(model), "CPU", settings).create_infer_request()
    return lambda x: torch.from_numpy(request.infer([x.numpy()], share_inputs=True)[0].copy())


def start_onnxruntime(model: bytes | Path) -> Network:
    """ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    content = model if isinstance(model, bytes) else str(model)
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0])


STARTERS: dict[str, Callable[[bytes | Path], Network]] = {"openvino": start_openvino, "onnxruntime": start_onnxruntime}
