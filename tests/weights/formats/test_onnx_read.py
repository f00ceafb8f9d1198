"""AlexNets in ONNX files: ours go round to the bit, others' come in whichever way they were
written, the rest is refused.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from alexnet import AlexNet
from alexnet.arithmetic import LRN, Dropout
from alexnet.data.preprocessing import Preprocessing
from alexnet.errors import CheckpointError
from alexnet.trained import Trained
from alexnet.variants import get_variant, named
from alexnet.weights import importer
from alexnet.weights.formats import onnx_graph
from alexnet.weights.formats.onnx_graph import KEY, to_onnx
from alexnet.weights.formats.onnx_read import looks_like, read
from alexnet.weights.match import Foreign, fit

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
convert_float_to_float16 = pytest.importorskip("onnxruntime.transformers.float16").convert_float_to_float16
helper, numpy_helper = onnx.helper, onnx.numpy_helper

BVLC = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / "light_bvlc_alexnet.onnx"


def make(name: str, **changes: Any) -> Trained:
    """A small network with random weights and biases, and odd preprocessing, so that a default in
    its place would show.
    """
    variant = get_variant(name, **{"width": 1 / 16, "num_classes": 3, "input_size": 67, **changes})
    model = AlexNet(variant).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.1)
    preprocessing = Preprocessing(80, 67, "squash", True, torch.rand(3, 80, 80), torch.rand(3))
    return Trained(model, ("a", "b", "ç"), preprocessing, {}, {})


def equal(foreign: Foreign, model: nn.Module) -> bool:
    """Whether a file's tensors are the network's to the bit."""
    state = model.state_dict()
    return set(foreign.tensors) == set(state) and all(
        torch.equal(foreign.tensors[name], value) for name, value in state.items()
    )


@pytest.mark.parametrize("inside", [False, True], ids=["tensors", "pixels"])
@pytest.mark.parametrize("name", named())
def test_ours_goes_round(name: str, inside: bool, tmp_path: Path) -> None:
    trained = make(name)
    (tmp_path / "x.onnx").write_bytes(to_onnx(trained, with_preprocessing=inside).SerializeToString())
    assert looks_like(tmp_path / "x.onnx")
    foreign = read(tmp_path / "x.onnx")
    assert equal(foreign, trained.model)
    assert (foreign.variant, foreign.classes, foreign.input_size) == (trained.model.variant, trained.classes, 67)
    assert fit(foreign) == trained.model.variant
    assert foreign.ops == tuple(op for op in trained.model.ops if not isinstance(op, Dropout))
    found, expected = foreign.preprocessing, trained.preprocessing
    assert found is not None
    assert torch.equal(found.mean, expected.mean) and torch.equal(found.scale, expected.scale)
    assert (found.stored_size, found.input_size, found.resize, found.bgr) == (80, 67, "squash", True)


def change_node(model: Any) -> None:
    model.graph.node[2].op_type = "Sigmoid"


def change_lrn(model: Any) -> None:
    next(node for node in model.graph.node if node.op_type == "LRN").attribute[0].f = 0.5


def drop_node(model: Any) -> None:
    del model.graph.node[-1]


def change_keep(model: Any) -> None:
    next(tensor for tensor in model.graph.initializer if tensor.name == "drop6.keep").raw_data = b"\0\0\0\0"


def change_variant(model: Any) -> None:
    model.metadata_props[0].value = model.metadata_props[0].value.replace('"lrn_k": 2.0', '"lrn_k": 1.0')


def change_size(model: Any) -> None:
    """10^9 pixels by declaration."""
    text = model.metadata_props[0].value
    model.metadata_props[0].value = text.replace('"input_size": 67', '"input_size": 60000').replace(
        '"stored_size": 80', '"stored_size": 65000'
    )


def change_width(model: Any) -> None:
    model.metadata_props[0].value = model.metadata_props[0].value.replace('"width": 0.0625', '"width": 4096')


def change_opset(model: Any) -> None:
    model.opset_import[0].version = 9


def damage(model: Any) -> None:
    model.metadata_props[0].value = model.metadata_props[0].value[:-5]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (change_node, "node 2 is Sigmoid 'norm1' but .* describes LRN 'norm1'"),
        (change_lrn, "node 2 is LRN 'norm1' but"),
        (drop_node, r"has \d+ nodes but .* describes \d+"),
        (change_keep, "constant 0 is 'drop6.keep'"),
        (change_variant, "node 2 is LRN"),
        (change_size, "a mean and a scale of"),
        (change_width, r"more than 1e\+12"),
        (change_opset, "opset 0 is"),
        (damage, "damaged: it is not valid JSON"),
    ],
)
def test_ours_must_agree_with_its_metadata(change: Callable[[Any], None], reason: str, tmp_path: Path) -> None:
    model = to_onnx(make("paper"))
    change(model)
    with pytest.raises(CheckpointError, match=reason):
        read(stored(model, tmp_path))


@pytest.mark.parametrize("pixels", [False, True])
def test_our_first_files(tmp_path: Path, pixels: bool) -> None:
    """They left the zeros around the spatial norm's maps to the average, and still open."""
    trained = make("code-2012")
    graph = onnx_graph.structure(trained.model.variant, trained.preprocessing if pixels else None, pads=False)
    assert "Pad" not in {node.op_type for node in graph.model.graph.node}
    for name, parameter in trained.model.state_dict().items():
        graph.constant(name, parameter.numpy())
    graph.model.metadata_props.add(key="alexnet", value=onnx_graph.header(trained))
    found = read(stored(graph.model, tmp_path))
    assert all(torch.equal(found.tensors[name], value) for name, value in trained.model.state_dict().items())


def test_ours_in_halves_is_refused_as_such(tmp_path: Path) -> None:
    model = convert_float_to_float16(to_onnx(make("paper")))
    with pytest.raises(CheckpointError, match="rounded it to float16; import the float32 network"):
        read(stored(model, tmp_path))


@pytest.mark.parametrize("level", ["BASIC", "EXTENDED", "ALL"])
@pytest.mark.parametrize("ours", [True, False])
def test_what_onnx_runtime_optimised(tmp_path: Path, level: str, ours: bool) -> None:
    """With its own operations it is refused for that; a graph of ordinary ones
    that it only tidied is read.
    """
    model = to_onnx(make("caffe"))
    if not ours:
        del model.metadata_props[:]
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "fast.onnx"), 3
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    if level == "BASIC" and not ours:
        assert read(tmp_path / "fast.onnx").ops
        return
    with pytest.raises(CheckpointError, match=r"fast\.onnx.* ONNX Runtime saved this graph in a form of its own"):
        read(tmp_path / "fast.onnx")


def test_ours_with_other_pixels_inside(tmp_path: Path) -> None:
    """The graph's mean is another than the metadata's."""
    model = to_onnx(make("paper"), with_preprocessing=True)
    mean = next(tensor for tensor in model.graph.initializer if tensor.name == "mean")
    mean.raw_data = bytes(len(mean.raw_data))
    with pytest.raises(CheckpointError, match="'mean' but"):
        read(stored(model, tmp_path))


# Other programs' files.


def test_the_model_zoos_alexnet() -> None:
    """Its graph without its weights, which stand for themselves as ConstantOfShape:
    61 million ones in 4 kB.
    """
    assert looks_like(BVLC)
    foreign = read(BVLC)
    variant = fit(foreign)
    assert (variant.name, variant.input_size, variant.parameters) == ("caffe", 227, 60_965_224)
    assert variant == named()["caffe"]
    assert {name: tuple(value.shape) for name, value in foreign.tensors.items()}["fc6.weight"] == (4096, 9216)
    assert [note.split()[0] for note in foreign.notes] == ["declares", "pool5"]
    assert [op.coefficient for op in foreign.ops or () if isinstance(op, LRN)] == [2e-5, 2e-5]  # not float32's 1.9999999e-05


def sequential(dropout: float = 0.5) -> nn.Sequential:
    """torchvision's AlexNet, narrow."""
    torch.manual_seed(4)
    pool, relu = nn.MaxPool2d(3, 2), nn.ReLU()
    features = nn.Sequential(
        nn.Conv2d(3, 4, 11, 4, 2),
        relu,
        pool,
        nn.Conv2d(4, 12, 5, padding=2),
        relu,
        pool,
        nn.Conv2d(12, 24, 3, padding=1),
        relu,
        nn.Conv2d(24, 16, 3, padding=1),
        relu,
        nn.Conv2d(16, 16, 3, padding=1),
        relu,
        pool,
    )
    classifier = nn.Sequential(
        nn.Dropout(dropout), nn.Linear(16 * 36, 256), relu, nn.Dropout(dropout), nn.Linear(256, 256), relu, nn.Linear(256, 10)
    )
    return nn.Sequential(features, nn.AdaptiveAvgPool2d((6, 6)), nn.Flatten(1), classifier).eval()


def exported(path: Path, net: nn.Module, side: int = 224, **options: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters' own: deprecations, names of axes
        x = torch.zeros(2, 3, side, side, dtype=next(net.parameters()).dtype)
        torch.onnx.export(net, (x,), path, verbose=False, **options)
    return path


@pytest.mark.parametrize(
    "options",
    [
        {"dynamo": False},
        {"dynamo": False, "input_names": ["x"], "dynamic_axes": {"x": {0: "N"}}, "opset_version": 11},
        {"dynamo": False, "training": torch.onnx.TrainingMode.TRAINING, "do_constant_folding": False},
        {"dynamo": True},  # leaves the weights in a file beside the model
        {"dynamo": True, "external_data": False, "optimize": False},
        {"dynamo": True, "external_data": False, "optimize": False, "dynamic_shapes": ({0: torch.export.Dim("N")},)},
    ],
    ids=["legacy", "legacy-dynamic", "legacy-dropout", "dynamo", "dynamo-plain", "dynamo-dynamic"],
)
def test_pytorchs_exports(options: dict[str, Any], tmp_path: Path) -> None:
    """Both exporters; and what comes in computes what went out."""
    if options["dynamo"]:
        pytest.importorskip("onnxscript")
    net = sequential()
    foreign = read(exported(tmp_path / "x.onnx", net, **options))
    variant = fit(foreign)
    assert (variant.name, variant.input_size, variant.width) == ("torchvision", 224, 1 / 16)
    model = AlexNet(variant).eval()
    model.load_state_dict(dict(foreign.tensors))
    x = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(model(x), net.eval()(x))


class Normed(nn.Module):
    """Caffe's AlexNet, narrow, around PyTorch's own normalisation."""

    def __init__(self, size: int = 5, k: float = 2.0) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(*sizes, padding=size // 2 if size < 11 else 0, stride=1 if size < 11 else 4, groups=groups)
            for *sizes, size, groups in ((3, 4, 11, 11, 1), (4, 8, 5, 5, 2), (8, 8, 3, 3, 1), (8, 8, 3, 3, 2), (8, 8, 3, 3, 2))
        )
        self.layers = nn.ModuleList([nn.Linear(8, 6), nn.Linear(6, 6), nn.Linear(6, 3)])
        self.norm = (size, 1e-4 * size / 5, 0.75, k)

    def forward(self, x: Tensor) -> Tensor:
        for number, layer in enumerate(self.convolutions):
            x = F.relu(layer(x))
            x = F.local_response_norm(x, *self.norm) if number < 2 else x
            x = F.max_pool2d(x, 3, 2) if number in (0, 1, 4) else x
        x = x.flatten(1)
        for layer in self.layers[:2]:
            x = F.relu(layer(x))
        return self.layers[2](x)


FREE = {"input_names": ["x"], "dynamic_axes": {"x": {0: "N"}}}
EXPORTS = {
    "legacy": {"dynamo": False},
    "legacy-free": {"dynamo": False, **FREE},
    "legacy-11": {"dynamo": False, "opset_version": 11, **FREE},
    "legacy-unfolded": {"dynamo": False, "do_constant_folding": False, **FREE},
    "dynamo": {"dynamo": True, "external_data": False},
    "dynamo-free": {
        "dynamo": True,
        "external_data": False,
        "optimize": False,
        "dynamic_shapes": ({0: torch.export.Dim("N")},),
    },
}


@pytest.fixture(scope="module", params=EXPORTS)
def normed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with PyTorch's normalisation, written by one of its exporters."""
    if EXPORTS[request.param]["dynamo"]:
        pytest.importorskip("onnxscript")
    return exported(tmp_path_factory.mktemp("normed") / "x.onnx", Normed(), 67, **EXPORTS[request.param])


def check_normed(file: Path, tolerance: float) -> Foreign:
    foreign = importer.read(file)
    variant = fit(foreign)
    assert (variant.name, variant.lrn_k, variant.lrn_coefficient, variant.lrn_window) == ("caffe", 2.0, 2e-5, "all")
    model = AlexNet(variant).eval()
    model.load_state_dict(dict(foreign.tensors))
    x = torch.randn(2, 3, 67, 67) * 300
    with torch.inference_mode():
        torch.testing.assert_close(model(x), Normed()(x), rtol=tolerance, atol=tolerance)
        assert (Normed(k=1.0)(x) - Normed()(x)).abs().max() > 0.05  # the norm matters
    return foreign


def test_lrn_in_parts(normed: Path) -> None:
    """PyTorch has no operation for it. What comes in computes what went out, in float32."""
    assert check_normed(normed, 1e-5).notes == ()


@pytest.mark.parametrize("keep", [False, True])
def test_halves(normed: Path, keep: bool, tmp_path: Path) -> None:
    """As ONNX Runtime's converter makes them, with float32 at the ends or without:
    eleven bits, and a note.
    """
    path = stored(convert_float_to_float16(onnx.load(normed), keep_io_types=keep), tmp_path)
    foreign = check_normed(path, 1e-2)
    assert foreign.notes == ("its weights were converted from torch.float16 to torch.float32",)
    exact = read(normed).tensors
    assert all(torch.equal(value.half(), exact[name].half()) for name, value in foreign.tensors.items())


def test_a_network_in_halves(tmp_path: Path) -> None:
    """As PyTorch itself exports one."""
    pytest.importorskip("onnxscript")
    net = Normed().half()
    foreign = importer.read(exported(tmp_path / "x.onnx", net, 67, dynamo=True, external_data=False))
    assert torch.equal(foreign.tensors["conv1.weight"], net.convolutions[0].weight.float())


@pytest.fixture(scope="module")
def in_parts(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    pytest.importorskip("onnxscript")
    return exported(tmp_path_factory.mktemp("parts") / "x.onnx", Normed(), 67, **EXPORTS["dynamo"]).read_bytes()


def node_of(model: Any, kind: str) -> Any:
    return next(node for node in model.graph.node if node.op_type == kind)


def another(model: Any, kind: str, values: Any, place: int = 1) -> None:
    """Give the first node of a kind another constant, of the type it had."""
    node = node_of(model, kind)
    old = numpy_helper.to_array(find(model, node.input[place]))
    put(model, "another", np.asarray(values, old.dtype).reshape(old.shape))
    node.input[place] = "another"


def windows(model: Any, **attributes: Any) -> None:
    """Other settings for the first average."""
    node = node_of(model, "AveragePool")
    for name, value in attributes.items():
        for attribute in [attribute for attribute in node.attribute if attribute.name == name]:
            node.attribute.remove(attribute)
        node.attribute.append(helper.make_attribute(name, value))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda model: another(model, "Pad", [0, 0, 4, 0, 0, 0, 0, 0, 0, 0]), r"pads \(4, 0\) channels for a window of 5"),
        (lambda model: another(model, "Pad", [0, 0, 2, 1, 0, 0, 0, 2, 0, 0]), "expected zeros around the channels only"),
        (lambda model: windows(model, kernel_shape=[3, 1, 1]), r"pads \(2, 2\) channels for a window of 3"),
        (lambda model: windows(model, kernel_shape=[5, 3, 1]), r"has windows \[5, 3, 1\] in a norm"),
        (lambda model: windows(model, strides=[2, 1, 1]), r"has strides = \[2, 1, 1\]"),
        (lambda model: windows(model, pads=[0, 0, 1, 0, 0, 1]), "AveragePool, has pads"),
        (lambda model: another(model, "Reshape", [2, 2, 2, 15, 15]), r"does not make \(N, 1, 4, H, W\)"),
        (lambda model: another(model, "Squeeze", [2]), r"takes out the dimensions \[2\]"),
        (lambda model: another(model, "Add", float("nan")), "expected one finite number"),
        (lambda model: setattr(node_of(model, "Add"), "op_type", "Sub"), "Sub; expected Add"),
        (lambda model: node_of(model, "Div").input.reverse(), "does not divide"),
        (lambda model: node_of(model, "Pow").input.reverse(), "has no stored number"),
        (lambda model: node_of(model, "Mul").input.__setitem__(1, "x"), "is not the square|branches|something else"),
    ],
)
def test_what_is_almost_lrn(in_parts: bytes, tmp_path: Path, change: Callable[[Any], None], reason: str) -> None:
    model = onnx.load_from_string(in_parts)
    change(model)
    with pytest.raises(CheckpointError, match=reason):
        read(stored(model, tmp_path))


def test_another_window(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    foreign = read(exported(tmp_path / "x.onnx", Normed(size=3), 67, **EXPORTS["dynamo"]))
    with pytest.raises(CheckpointError, match=r"norm1 has size = 3; in an AlexNet like it, norm1 has 5"):
        fit(foreign)


@pytest.mark.parametrize(("side", "dynamo"), [(416, False), (448, True)])
def test_adaptive_pooling_at_another_size(tmp_path: Path, side: int, dynamo: bool) -> None:
    """An average where the sizes divide, a gather where they do not: refused for what it is."""
    if dynamo:
        pytest.importorskip("onnxscript")
    path = exported(tmp_path / "x.onnx", sequential(), side, dynamo=dynamo)
    with pytest.raises(CheckpointError, match="resamples pool5's maps, .* export it at its own size, 224 for torchvision's"):
        read(path)


def stored(model: Any, folder: Path) -> Path:
    (folder / "x.onnx").write_bytes(model.SerializeToString())
    return folder / "x.onnx"


def plain(name: str = "caffe") -> tuple[Any, AlexNet]:
    """A small network's file without our metadata, and the network: LRN, no dropout in the
    graph.
    """
    trained = make(name)
    model = to_onnx(trained)
    del model.metadata_props[:]
    return model, trained.model


def find(model: Any, name: str) -> Any:
    return next(item for item in (*model.graph.node, *model.graph.initializer) if item.name == name)


def array(model: Any, name: str) -> np.ndarray:
    return numpy_helper.to_array(find(model, name))


def put(model: Any, name: str, values: np.ndarray) -> None:
    """Replace or append an initialiser."""
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name == name]:
        model.graph.initializer.remove(tensor)
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), name))


def insert(model: Any, before: str, *nodes: Any) -> None:
    """Put nodes before the node of a name."""
    place = [node.name for node in model.graph.node].index(before)
    for node in reversed(nodes):
        model.graph.node.insert(place, node)


def between(model: Any, before: str, kind: str, *inputs: str, **attributes: Any) -> None:
    """Put one node into the chain before the node of a name."""
    after = find(model, before)
    insert(model, before, helper.make_node(kind, [after.input[0], *inputs], ["between"], "between", **attributes))
    after.input[0] = "between"


def rows_are_inputs(model: Any) -> None:
    put(model, "fc7.weight", array(model, "fc7.weight").T)
    del find(model, "fc7").attribute[:]


def product_and_sum(model: Any) -> None:
    rows_are_inputs(model)
    node = find(model, "fc7")
    node.CopyFrom(helper.make_node("MatMul", node.input[:2], ["product"], "fc7"))
    insert(model, "relu7", helper.make_node("Add", ["fc7.bias", "product"], ["fc7"], "sum"))


def transposed(model: Any) -> None:
    rows_are_inputs(model)
    insert(model, "fc7", helper.make_node("Transpose", ["fc7.weight"], ["turned"], "turned", perm=[1, 0]))
    find(model, "fc7").input[1] = "turned"
    put(model, "fc7.weight", array(model, "fc7.weight").T)


def constants(model: Any) -> None:
    for name in ("conv2.weight", "fc8.bias"):
        tensor = find(model, name)
        insert(model, "conv1", helper.make_node("Constant", [], [name], value=tensor))
        model.graph.initializer.remove(tensor)


def identities(model: Any) -> None:
    between(model, "relu1", "Identity")
    insert(model, "conv1", helper.make_node("Identity", ["conv2.weight"], ["same"], "same"))
    insert(model, "conv1", helper.make_node("Identity", ["conv1.weight"], ["same0"], "same0"))
    find(model, "conv2").input[1] = "same"


def dropout_and_softmax(model: Any) -> None:
    insert(model, "fc8", helper.make_node("Dropout", ["relu7"], ["dropped", "mask"], "drop7"))
    find(model, "fc8").input[0] = "dropped"
    model.graph.node.append(helper.make_node("Softmax", ["fc8"], ["prob"], "prob"))
    model.graph.output[0].name = "prob"


def reshape(model: Any) -> None:
    node = find(model, "fc6.input")
    node.CopyFrom(helper.make_node("Reshape", [node.input[0], "shape"], [node.output[0]], "fc6.input"))
    put(model, "shape", np.array([0, -1]))


def reshape_by_size(model: Any) -> None:
    """x.view(x.size(0), 16), as it is traced."""
    reshape(model)
    put(model, "zero", np.array([0]))
    put(model, "units", np.array([16]))
    model.graph.initializer.remove(find(model, "shape"))
    insert(
        model,
        "fc6.input",
        helper.make_node("Shape", ["pool5"], ["sides"], "sides"),
        helper.make_node("Gather", ["sides", "zero"], ["count"], "count", axis=0),
        helper.make_node("Concat", ["count", "units"], ["shape"], "shape", axis=0),
    )


def reshape_by_list(model: Any) -> None:
    reshape(model)
    model.graph.initializer.remove(find(model, "shape"))
    insert(model, "conv1", helper.make_node("Constant", [], ["shape"], value_ints=[-1, 16]))


def numbers(model: Any) -> None:
    """Values in protobuf's list of floats in place of bytes."""
    tensor = find(model, "conv1.bias")
    values = array(model, "conv1.bias")
    tensor.ClearField("raw_data")
    tensor.float_data.extend(values)


def inputs(model: Any) -> None:
    """IR version 3 lists initialisers among the inputs."""
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))


def free(model: Any) -> None:
    """The batch has a name, or none."""
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"


def adaptive(model: Any) -> None:
    between(model, "fc6.input", "AveragePool", kernel_shape=[1, 1], strides=[1, 1])


def automatic(model: Any) -> None:
    node = find(model, "conv1")
    node.attribute.remove(next(attribute for attribute in node.attribute if attribute.name == "pads"))
    node.attribute.append(helper.make_attribute("auto_pad", "VALID"))


def rounding_up(model: Any) -> None:
    find(model, "pool5").attribute.append(helper.make_attribute("ceil_mode", 1))


@pytest.mark.parametrize(
    "change",
    [
        rows_are_inputs,
        product_and_sum,
        transposed,
        constants,
        identities,
        dropout_and_softmax,
        reshape,
        reshape_by_size,
        reshape_by_list,
        numbers,
        inputs,
        free,
        adaptive,
        automatic,
        rounding_up,
    ],
)
def test_ways_to_write_the_same(change: Callable[[Any], None], tmp_path: Path) -> None:
    """Each is valid ONNX, runs, and is read as the network it was made from."""
    model, net = plain()
    change(model)
    onnx.checker.check_model(model)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.zeros((1, 3, 67, 67), np.float32)})[0].shape == (1, 3)
    foreign = read(stored(model, tmp_path))
    assert equal(foreign, net)
    variant = fit(foreign)
    assert (variant.name, variant.width, variant.input_size, variant.towers) == ("caffe", 1 / 16, 67, 2)


def test_half_precision_comes_as_it_is(tmp_path: Path) -> None:
    model, net = plain()
    put(model, "fc7.weight", array(model, "fc7.weight").astype(np.float16))
    found = read(stored(model, tmp_path)).tensors["fc7.weight"]
    assert torch.equal(found, net.get_parameter("fc7.weight").half())


@pytest.mark.parametrize("name", ["caffenet", "torchvision"])
def test_order_of_layers(name: str, tmp_path: Path) -> None:
    model, net = plain(name)
    foreign = read(stored(model, tmp_path))
    assert equal(foreign, net)
    assert fit(foreign).name == name


# What is refused.


def damaged_kind(model: Any) -> None:
    """Not UTF-8."""
    graph = model.graph.SerializeToString().replace(b"Relu", b"Re\xfflu"[:4], 1)
    model.graph.ParseFromString(graph)


def branch(model: Any) -> None:
    insert(model, "norm1", helper.make_node("Relu", ["conv1"], ["side"], "side"))


def other(model: Any) -> None:
    find(model, "relu3").op_type = "Sigmoid"


def other_domain(model: Any) -> None:
    find(model, "relu3").domain = "com.example"


def normalised(model: Any) -> None:
    find(model, "norm1").op_type = "BatchNormalization"


def quantised(model: Any) -> None:
    between(model, "conv2", "QuantizeLinear", "conv1.bias")


def quantised_weights(model: Any) -> None:
    insert(model, "conv1", helper.make_node("DequantizeLinear", ["conv2.weight", "conv1.bias"], ["dequantised"], "dequantise"))
    find(model, "conv2").input[1] = "dequantised"


def whole_numbers(model: Any) -> None:
    put(model, "conv2.weight", np.zeros((16, 3, 5, 5), np.int8))


def short(model: Any) -> None:
    find(model, "relu7").output[0] = "fc8"
    model.graph.node.remove(find(model, "fc8"))


def long(model: Any) -> None:
    weight = array(model, "conv4.weight")
    put(model, "more", weight)
    between(model, "conv5", "Conv", "more", group=2, pads=[1, 1, 1, 1])


def many(model: Any) -> None:
    between(model, "fc6.input", "Conv", "conv4.weight", group=2, pads=[1, 1, 1, 1])


def unflattened(model: Any) -> None:
    find(model, "fc6").input[0] = "pool5"
    model.graph.node.remove(find(model, "fc6.input"))


def flat_too_early(model: Any) -> None:
    between(model, "pool1", "Flatten")


def padding(model: Any) -> None:
    next(value for value in find(model, "conv2").attribute if value.name == "pads").ints[:] = [2, 1, 2, 1]


def same_upper(model: Any) -> None:
    find(model, "conv2").attribute.append(helper.make_attribute("auto_pad", "SAME_UPPER"))


def dilated(model: Any) -> None:
    find(model, "conv2").attribute.append(helper.make_attribute("dilations", [2, 2]))


def more_windows(model: Any) -> None:
    find(model, "pool2").attribute.append(helper.make_attribute("pads", [0, 0, 2, 2]))


def wrong_shape(model: Any) -> None:
    put(model, "conv3.weight", array(model, "conv3.weight")[:, :-1])


def wrong_input(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 99
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 99


def pictures_last(model: Any) -> None:
    for place, side in enumerate((1, 67, 67, 3)):
        model.graph.input[0].type.tensor_type.shape.dim[place].dim_value = side


def two_inputs(model: Any) -> None:
    model.graph.input.append(helper.make_tensor_value_info("y", 1, [1]))


def fewer_bytes(model: Any) -> None:
    tensor = find(model, "fc6.weight")
    tensor.raw_data = tensor.raw_data[:-4]


def huge(model: Any) -> None:
    find(model, "fc6.weight").dims[:] = [2**40, 2**40]


def negative(model: Any) -> None:
    find(model, "fc6.weight").dims[:] = [-1, -4096]


def many_dimensions(model: Any) -> None:
    find(model, "fc6.weight").dims[:] = [2**62] * 100_000


def made_huge(model: Any) -> None:
    put(model, "shape", np.array([2**20, 2**20]))
    insert(model, "conv1", helper.make_node("ConstantOfShape", ["shape"], ["made"], "made"))
    find(model, "fc7").input[1] = "made"


def glued(model: Any) -> None:
    insert(model, "conv1", helper.make_node("Concat", ["fc7.weight", "fc7.weight"], ["both"], "both", axis=0))
    find(model, "fc7").input[1] = "both"


def computed(model: Any) -> None:
    insert(model, "conv1", helper.make_node("Mul", ["fc7.weight", "fc7.weight"], ["squares"], "squares"))
    find(model, "fc7").input[1] = "squares"


def missing(model: Any) -> None:
    model.graph.initializer.remove(find(model, "fc7.weight"))


def scaled(model: Any) -> None:
    find(model, "fc7").attribute.append(helper.make_attribute("alpha", 0.5))


def infinite(model: Any) -> None:
    next(value for value in find(model, "norm1").attribute if value.name == "bias").f = float("nan")


def mask_used(model: Any) -> None:
    dropout_and_softmax(model)
    model.graph.node.append(helper.make_node("Cast", ["mask"], ["masked"], "masked", to=1))


def other_way_round(model: Any) -> None:
    find(model, "fc7").input[:] = ["fc7.weight", "relu6", "fc7.bias"]


def no_output(model: Any) -> None:
    model.graph.output[0].name = "elsewhere"


def aside(model: Any) -> None:
    insert(model, "conv1", helper.make_node("Relu", ["nowhere"], ["aside"], "aside"))


def after_the_end(model: Any) -> None:
    model.graph.node.append(helper.make_node("Softmax", ["fc8"], ["prob"], "prob"))
    model.graph.node.append(helper.make_node("Relu", ["prob"], ["more"], "more"))


def circle(model: Any) -> None:
    find(model, "relu7").output[0] = "x"


def empty(model: Any) -> None:
    model.graph.Clear()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (damaged_kind, r"node 'relu1' is b'Re\\xffl'; expected"),
        (branch, "'conv1' branches to node 'relu1' and node 'side'; an AlexNet has no branches"),
        (other, "node 'relu3' is 'Sigmoid'; expected Conv, Relu"),
        (other_domain, "node 'relu3' is 'Relu'; expected"),
        (normalised, "node 'norm1' is 'BatchNormalization'"),
        (quantised, "node 'between' is 'QuantizeLinear'; expected .* .quantised: export the network in float32"),
        (quantised_weights, "'dequantised' comes from node 'dequantise', DequantizeLinear .quantised"),
        (whole_numbers, "'conv2.weight' holds int8, a quantised"),
        (short, "ends at node 'relu7' after 5 convolutions and 2 fully connected layers; expected 5 and 3"),
        (long, "node 'conv5', Conv, comes after 5 layers; expected fc6"),
        (many, "node 'between', Conv, comes after 5 layers"),
        (unflattened, "node 'fc6', Gemm, reads maps directly; expected a Flatten or Reshape before it"),
        (flat_too_early, "node 'pool1', MaxPool, occurs at a place where an AlexNet has none"),
        (padding, r"node 'conv2', Conv, has pads \[2, 1, 2, 1\]"),
        (same_upper, "auto_pad b'SAME_UPPER'"),
        (dilated, r"has dilations = \[2, 2\]; expected \[1, 1\]"),
        (more_windows, "fc6 has|pool2 has padding or rounds up, which adds a window"),
        (wrong_shape, r"conv3.weight has shape \(24, 15, 3, 3\); its other layers need \(24, 16, 3, 3\)"),
        (wrong_input, "fc6 has 16 inputs, but an input of 99 pixels gives 64"),
        (pictures_last, r"shape \[1, 67, 67, 3\]; expected floats of shape \(N, 3, side, side\)"),
        (two_inputs, "it has 2 inputs; expected one, the picture"),
        (fewer_bytes, r"'fc6.weight' declares the shape \[256, 16\] \(4,096 values\) but holds 4,095"),
        (huge, "'fc6.weight' declares the shape .* but holds 4,096"),
        (negative, "'fc6.weight' declares the shape"),
        (many_dimensions, "'fc6.weight' declares the shape"),
        (made_huge, "node 'made' fills the shape"),
        (computed, "'squares' comes from node 'squares', Mul; expected a stored tensor"),
        (glued, "'both' comes from node 'both', Concat; expected a stored tensor"),
        (missing, "'fc7.weight' is missing from the graph"),
        (scaled, "node 'fc7', Gemm, has an alpha or beta other than 1"),
        (infinite, "node 'norm1' has bias = nan"),
        (mask_used, "node 'drop7', Dropout, must have exactly one output that is used"),
        (other_way_round, "node 'fc7', Gemm, takes 'relu6', but not as its first input"),
        (no_output, "ends at node 'fc8', before its output"),
        (aside, "skips 1 nodes"),
        (after_the_end, "node 'more', Relu, occurs at a place where an AlexNet has none"),
        (circle, "'x' branches|ends at node 'relu7'"),
        (empty, "it has 0 inputs"),
    ],
)
def test_refused_with_the_reason(change: Callable[[Any], None], reason: str, tmp_path: Path) -> None:
    model, _ = plain()
    change(model)
    with pytest.raises(CheckpointError, match=reason):
        read(stored(model, tmp_path))


def test_dropout_at_test_needs_our_metadata(tmp_path: Path) -> None:
    """Without it, nothing says that the factor is dropout's; dropping it
    would double the activations.
    """
    model, _ = plain("paper")
    with pytest.raises(CheckpointError, match="node 'drop6' is 'Mul'; expected"):
        read(stored(model, tmp_path))


@pytest.mark.parametrize(("name", "side"), [("caffe", 227), ("torchvision", 224)])
def test_an_input_of_any_size(name: str, side: int, tmp_path: Path) -> None:
    """Where the file leaves height and width open, the usual size is taken if fc6
    fits it, and refused if not.
    """
    for size in (side, 67):
        model = to_onnx(make(name, input_size=size))
        del model.metadata_props[:]
        for place in (2, 3):
            model.graph.input[0].type.tensor_type.shape.dim[place].dim_param = "S"
        if size == side:
            assert read(stored(model, tmp_path)).input_size == side
        else:
            with pytest.raises(CheckpointError, match=rf"fc6 has 16 inputs, but an input of {side} pixels gives 576"):
                read(stored(model, tmp_path))


def test_a_declared_size_costs_nothing(tmp_path: Path) -> None:
    """The model zoo's file with every dimension a hundred times as large."""
    model = onnx.load(BVLC)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor) * 100
        tensor.raw_data = values.tobytes()
    with pytest.raises(CheckpointError, match=r"fills the shape .* 67,108,864 values in all"):
        read(stored(model, tmp_path))


# Tensors in other files.


def outside(folder: Path, location: str, offset: str = "0", length: int | None = None) -> Path:
    """A model whose fc7.weight lies in another file."""
    model, _ = plain()
    tensor = find(model, "fc7.weight")
    (folder / "weights.bin").write_bytes(tensor.raw_data[:length])
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset)):
        tensor.external_data.add(key=key, value=value)
    (folder / "deep").mkdir()
    (folder / "deep" / "x.onnx").write_bytes(model.SerializeToString())
    (folder / "link.bin").symlink_to(folder / "weights.bin")
    (folder / "x.onnx").write_bytes(model.SerializeToString())
    return folder / "x.onnx"


def test_weights_beside_the_model(tmp_path: Path) -> None:
    path = outside(tmp_path, "weights.bin")
    assert tuple(read(path).tensors["fc7.weight"].shape) == (256, 256)
    with pytest.raises(CheckpointError, match="no such regular file in the model's folder, and only that folder is read"):
        read(tmp_path / "deep" / "x.onnx")


@pytest.mark.parametrize(
    "location", ["../weights.bin", "deep/../weights.bin", "/etc/hostname", "..", "", ".", "link.bin", "a\0b", "n" * 300]
)
def test_no_way_out_of_the_folder(location: str, tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"no such regular file in the model's folder, and only that folder is read|cannot be read"
    ):
        read(outside(tmp_path, location))


@pytest.mark.parametrize(
    ("offset", "length"), [("4", None), ("-4", None), ("0", 100), ("9" * 19, None), ("²", None), ("1e3", None)]
)
def test_too_little_beside_the_model(offset: str, length: int | None, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="which is too short"):
        read(outside(tmp_path, "weights.bin", offset, length))


# Bytes.


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"\x08",
        b"\x08\x08",
        b"PK\x03\x04",
        b"\x80\x02}q",
        b"\x93NUMPY\x01",
        b"\n\x07AlexNet",
        b"\x08\xff\xff\xff\xff\xff\xff",
        b":\x05graph",
    ],
    ids=repr,
)
def test_other_files_do_not_look_like_it(start: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(start)
    assert not looks_like(tmp_path / "x")


def test_a_cut_file_still_looks_like_it(tmp_path: Path) -> None:
    """So that the message is about damage."""
    (tmp_path / "x").write_bytes(BVLC.read_bytes()[:1000])
    assert looks_like(tmp_path / "x")
    with pytest.raises(CheckpointError, match="damaged or not an ONNX file"):
        read(tmp_path / "x")


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        read(tmp_path)


def outcome(data: bytes, folder: Path) -> None:
    """Reading ends in tensors or in a `CheckpointError`."""
    path = folder / "x.onnx"
    path.write_bytes(data)
    looks_like(path)
    try:
        foreign = read(path)
    except CheckpointError as error:
        assert str(path) in str(error)
    else:
        assert all(isinstance(tensor, Tensor) for tensor in foreign.tensors.values())


FUZZ = settings(max_examples=150, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes(tmp_path: Path, data: bytes, started: bool) -> None:
    outcome(b"\x08\x08" * started + data, tmp_path)


#: Small whole files: the model zoo's, 4 kB in which every byte matters, and ours, of which weights
#: are left out of the fuzzing.
OURS = to_onnx(make("code-2012"), with_preprocessing=True)
edits = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=3), st.integers(0, 3)), min_size=1, max_size=6)


def edited(data: bytes, changes: list[tuple[float, bytes, int]]) -> bytes:
    """Bytes overwritten, put in and taken out at places given as shares of the length."""
    for place, new, old in changes:
        start = int(place * len(data))
        data = data[:start] + new + data[start + old :]
    return data


@FUZZ
@given(edits)
def test_damaged_bytes(tmp_path: Path, changes: list[tuple[float, bytes, int]]) -> None:
    outcome(edited(BVLC.read_bytes(), changes), tmp_path)


@FUZZ
@given(edits)
def test_damaged_metadata(tmp_path: Path, changes: list[tuple[float, bytes, int]]) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(OURS)
    text = model.metadata_props[0].value
    head = text.index('"mean"')
    model.metadata_props[0].value = edited(text[:head].encode(), changes).decode("utf-8", "replace") + text[head:]
    outcome(model.SerializeToString(), tmp_path)


@FUZZ
@given(st.data())
def test_damaged_nodes(tmp_path: Path, data: st.DataObject) -> None:
    """Valid protobuf, odd graph: numbers, names and operations exchanged, nodes repeated or
    gone.
    """
    model = onnx.load(BVLC)
    nodes = model.graph.node
    names = sorted({name for node in nodes for name in (*node.input, *node.output)})
    kinds = sorted(
        {node.op_type for node in nodes} | {"MatMul", "Add", "Transpose", "Identity", "Constant", "Flatten", "AveragePool"}
    )
    for _ in range(data.draw(st.integers(1, 4))):
        node = nodes[data.draw(st.integers(0, len(nodes) - 1))]
        match data.draw(st.sampled_from(["kind", "input", "output", "ints", "type", "remove", "repeat", "dims"])):
            case "kind":
                node.op_type = data.draw(st.sampled_from(kinds))
            case "input" if node.input:
                node.input[data.draw(st.integers(0, len(node.input) - 1))] = data.draw(st.sampled_from(names))
            case "output" if node.output:
                node.output[0] = data.draw(st.sampled_from(["", *names]))
            case "ints":
                for attribute in node.attribute:
                    attribute.ints[:] = data.draw(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-1, 5), max_size=5))
                    attribute.i = data.draw(st.integers(-(2**63), 2**63 - 1))
            case "type":
                for attribute in node.attribute:
                    attribute.type = data.draw(st.integers(0, 14))
            case "remove" if len(nodes) > 1:
                nodes.remove(node)
            case "repeat":
                nodes.append(node)
            case "dims":
                tensor = model.graph.initializer[data.draw(st.integers(0, len(model.graph.initializer) - 1))]
                tensor.dims[:] = data.draw(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=6))
    outcome(model.SerializeToString(), tmp_path)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(CheckpointError, match=r"pip install 'alexnet\[serve\]'"):
        read(BVLC)


def test_our_metadata_has_one_entry() -> None:
    assert [entry.key for entry in OURS.metadata_props] == [KEY]
