"""Convert networks to int8: four times smaller, and several times faster on a CPU with instructions
for bytes.

Weights become whole numbers with one scale for each kernel; activations one scale for each layer's
input, from the smallest to the largest value seen on `CALIBRATION_IMAGES` training pictures.
Convolutions and fully connected layers multiply integers; their sums stay exact until the next
layer's input, so normalisation sees float32. ONNX Runtime's quantiser does the work, and writes the
pairs of QuantizeLinear and DequantizeLinear that every engine knows.

An 8-bit weight times an 8-bit activation, added in pairs, overflows 16 bits: processors without
VNNI saturate there, so they get 7-bit weights.
"""

import logging
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet.data.loader import Loader
from alexnet.data.preprocessing import Preprocessing
from alexnet.data.store import Store
from alexnet.errors import CheckpointError
from alexnet.trained import Trained
from alexnet.weights.formats import onnx_graph

if TYPE_CHECKING:
    import onnx

CALIBRATION_IMAGES = 256
BATCH_SIZE = 32


def has_vnni() -> bool:
    """Whether this processor adds 8-bit products in 32 bits; False if unknown."""
    if platform.machine() in ("arm64", "aarch64"):
        return True  # their dot products never pass through 16 bits
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_vnni" in flags or "avx_vnni" in flags


def quantise(trained: Trained, store: Store, seven_bits: bool | None = None) -> "onnx.ModelProto":
    """The network in int8, input and output in float32.

    Args:
        store: its training pictures calibrate the activations.
        seven_bits: keep weights within [-64, 63]; by default where the processor has no VNNI.

    Raises:
        CheckpointError: onnxruntime is not installed.
    """
    try:
        from onnxruntime import quantization as library
    except ImportError as error:
        raise CheckpointError("int8 needs the packages onnx and onnxruntime: pip install 'alexnet[serve]'.") from error

    model = onnx_graph.to_onnx(trained)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        written = Path(folder) / "int8.onnx"
        library.quantize_static(
            model,
            written,
            _pictures(library.CalibrationDataReader, trained.preprocessing, store),
            op_types_to_quantize=["Conv", "Gemm"],
            per_channel=True,
            reduce_range=not has_vnni() if seven_bits is None else seven_bits,
            activation_type=library.QuantType.QUInt8,
            weight_type=library.QuantType.QInt8,
            extra_options={"OpTypesToExcludeOutputQuantization": ["Conv", "Gemm"]},
        )
        quantised = onnx_graph.library().load(written)
    # The quantiser puts its own name there.
    quantised.producer_name, quantised.producer_version = model.producer_name, model.producer_version
    if onnx_graph.entry(quantised) is None:
        quantised.metadata_props.add(key=onnx_graph.KEY, value=onnx_graph.header(trained))
    return quantised


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the quantiser's advice to fold layers first: this graph has none to fold."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _pictures(reader: type, preprocessing: Preprocessing, store: Store) -> Any:
    """Centre crops of training pictures, in the library's form."""
    loader = Loader(store.train, min(BATCH_SIZE, len(store.train)), seed=0)
    batches = min(CALIBRATION_IMAGES // loader.batch_size, loader.steps_per_epoch)
    crops = (_crops(preprocessing, loader.batch(0, step).records) for step in range(batches))

    class CalibrationPictures(reader):
        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            crop = next(crops, None)
            return None if crop is None else {onnx_graph.X: crop}

    return CalibrationPictures()


def _crops(preprocessing: Preprocessing, records: torch.Tensor) -> NDArray[np.float32]:
    return preprocessing.view(records, *preprocessing.views(1)[0]).numpy()
