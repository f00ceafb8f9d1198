"""Compile every kernel as AlexNet's training calls it, for two generations of GPU, without one.

    python tests/kernels/compile_kernels.py

One line of JSON per kernel, configuration and generation: characters of PTX; per thread registers
and bytes of stack (0: nothing spilled); bytes of shared memory per program; machine instructions.
To save half of the time, a kernel's first configuration is compiled for both generations, the
others for one, in turn; of convolutions the largest tiles alone are, and those of one and a half
times a power of two, each for the layer that it is for. Run by `test_compiles.py` in a
process of its own, because a process that interprets kernels cannot compile them.
"""

import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from alexnet.kernels.gpu import augment, bias_relu, convolve, cross_entropy_topk, relu_dropout, relu_lrn_pool, sgd_step

CAPABILITIES = (80, 90)


def block(kernel: Any, dtype: str, each: int, towers: int, **constants: Any) -> tuple[Any, dict[str, str], dict[str, Any]]:
    """A kernel of relu_lrn_pool.py for maps of `towers` times `each` channels."""
    types = {"x_ptr": dtype, "y_ptr": dtype, "g_ptr": dtype, "dx_ptr": dtype, "winner_ptr": "*u8", "bias_ptr": "*fp32"}
    types |= {"dbias_ptr": "*fp32", "coefficient": "fp32", "k": "fp32"}
    sizes = {"EACH": each, "TOWERS": towers, "X_PLANES": 1, "Y_PLANES": 1, "C": relu_lrn_pool._padded(each)}
    return kernel, types, {**sizes, **constants}


def only(kernel: Any, config: triton.Config) -> Any:
    """A tuned kernel with one configuration."""
    return triton.autotune([config], key=[])(kernel.fn)


def convolutions() -> Iterator[tuple[str, Any, dict[str, str], dict[str, Any]]]:
    """The kernels of convolve.py, each in the tile that takes the most registers, and in those of
    one and a half times a power of two.
    """
    types = dict.fromkeys(("x_ptr", "w_ptr", "y_ptr", "g_ptr"), "*bf16") | {"sums_ptr": "*fp32", "bias_ptr": "*fp32"}
    conv1 = {"H": 57, "W": 57, "EACH": 48, "KERNELS": 96, "GROUPS": 1, "SIZE": 3, "PAD": 0, "APART": False}
    conv2 = {"H": 27, "W": 27, "EACH": 48, "KERNELS": 128, "GROUPS": 2, "SIZE": 5, "PAD": 2, "APART": False}
    conv4 = {"H": 13, "W": 13, "EACH": 192, "KERNELS": 192, "GROUPS": 2, "SIZE": 3, "PAD": 1, "APART": True}
    alone = {"bias_ptr": None, "Y_PLANES": 1, "BACKWARD": False}
    backward = {**alone, "EACH": 128, "KERNELS": 48, "BACKWARD": True}
    for name, p, wide, shape in (
        ("convolve", 256, 128, {**conv2, **alone}),
        ("convolve backward", 256, 128, {**conv2, **backward}),
        ("convolve apart", 256, 128, {**conv2, **alone, "APART": True, "Y_PLANES": 2}),
        ("convolve apart, backward", 256, 128, {**conv2, **backward, "APART": True, "Y_PLANES": 2}),
        ("convolve, 96 kernels", 128, 96, {**conv1, **alone}),
        ("convolve, 192 kernels", 128, 192, {**conv4, **alone, "Y_PLANES": 2}),
        ("convolve and ReLU, 192 kernels", 128, 192, {**conv4, "Y_PLANES": 2, "BACKWARD": False}),
        ("convolve backward, 48 kernels", 128, 48, {**conv2, **backward}),
    ):
        (tile,) = (tile for tile in convolve.TILES if (tile.kwargs["P"], convolve.width(tile)) == (p, wide))
        yield name, only(convolve._convolve, tile), types, shape
    for name, tile, shape in zip(
        ("convolve backward, weights", "convolve backward, weights of 96", "convolve backward, weights of 192"),
        convolve.WEIGHT_TILES[-3:],
        (conv2, conv1, conv4),
        strict=True,
    ):
        yield name, only(convolve._weight_gradient, tile), types, shape


def cases() -> Iterator[tuple[str, Any, dict[str, str], dict[str, Any]]]:
    """Name, kernel, types of its arguments other than i32, constants."""
    forward, backward = relu_lrn_pool._forward, relu_lrn_pool._backward
    for name, dtype, each, towers, relu_first, norm, *planes in (
        ("block1", "*bf16", 96, 1, True, True, 1, 1),
        ("block1, towers apart", "*bf16", 96, 1, True, True, 1, 2),
        ("block1 of code-2012 in float32", "*fp32", 48, 2, False, True, 1, 1),
        ("block2, towers apart", "*bf16", 256, 1, True, True, 2, 1),
        ("block5", "*bf16", 256, 1, True, False, 1, 1),
    ):
        steps = {"RELU_FIRST": relu_first, "NORM": norm, "X_PLANES": planes[0], "Y_PLANES": planes[1]}
        yield f"{name}, forward", *block(forward, dtype, each, towers, **steps)
        yield f"{name}, backward", *block(backward, dtype, each, towers, **steps)
    places = dict.fromkeys(("index_ptr", "top_ptr", "left_ptr"), "*i64")
    numbers = dict.fromkeys(("colour_ptr", "mean_ptr", "scale_ptr"), "*fp32")
    for cell in (1, 4):
        yield (
            f"augment to blocks of {cell}",
            augment._augment,
            {"out_ptr": "*bf16", "records_ptr": "*u8", "mirror_ptr": "*i1", **places, **numbers},
            {"S": 256, "CELL": cell, "MEAN_IMAGE": True, "BGR": False},
        )
    maps = dict.fromkeys(("x_ptr", "y_ptr", "g_ptr", "dx_ptr"), "*bf16") | {"bias_ptr": "*fp32", "dbias_ptr": "*fp32"}
    for name, planes in (("bias_relu", 1), ("bias_relu, towers apart", 2)):
        tile = {"CHANNELS": 384, "X_PLANES": planes, "Y_PLANES": planes, "C": bias_relu.C}
        yield f"{name}, forward", bias_relu._forward, maps, tile
        yield f"{name}, backward", bias_relu._backward, maps, tile
    units, scale = {"UNITS": relu_dropout.UNITS}, {"scale": "fp32"}
    yield "dropout forward", relu_dropout._forward, {"x_ptr": "*bf16", "y_ptr": "*bf16", "keys_ptr": "*i32", **scale}, units
    yield "dropout backward", relu_dropout._backward, dict.fromkeys(("g_ptr", "y_ptr", "dx_ptr"), "*bf16") | scale, units
    rows = {"logits_ptr": "*fp32", "labels_ptr": "*i64", "rows_ptr": "*fp32", "gradient_ptr": "*fp32"}
    rows |= {"one_over_n": "fp32", "smoothing": "fp32"}
    yield "cross_entropy", cross_entropy_topk._cross_entropy, rows, {"CLASSES": 1024}
    layers = 4
    tensors: dict[str, Any] = {"lr_ptr": "*fp32", "momentum": "fp32", "sizes": ("i32",) * layers, "decays": ("fp32",) * layers}
    tensors |= {"weights": ("*fp32",) * layers, "velocities": ("*fp32",) * layers}
    tensors |= {"gradients": ("*bf16",) * layers, "copies": ("*bf16",) * layers}
    yield "sgd", sgd_step._step, tensors, {"T": layers, "COPY": True, "NESTEROV": True}
    yield from convolutions()


def source(kernel: Any, types: dict[str, Any], constants: dict[str, Any]) -> ASTSource:
    """The kernel with its arguments' types; addresses and sizes are multiples of 16, as
    a launch would find them.
    """
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in kernel.arg_names}
    aligned: dict[tuple[int, ...], Any] = {}
    for place, kind in enumerate(signature.values()):
        inner = [(place, i) for i in range(len(kind))] if isinstance(kind, tuple) else [(place,)]
        kinds = kind if isinstance(kind, tuple) else (kind,)
        aligned |= {at: [["tt.divisibility", 16]] for at, k in zip(inner, kinds, strict=True) if k.startswith("*")}
        aligned |= {at: [["tt.divisibility", 16]] for at in inner if isinstance(kind, tuple) and kind[0] == "i32"}
    return ASTSource(kernel, signature, constants, aligned)


def configurations(kernel: Any) -> Iterator[tuple[triton.Config, int]]:
    """Configurations, and the generation to compile each for. ROWS bounds a loop and changes no
    instruction: one will do.
    """
    if not isinstance(kernel, triton.runtime.Autotuner):
        yield from ((triton.Config({}), capability) for capability in CAPABILITIES)
        return
    tiles = {str({**c.kwargs, "ROWS": 0, "warps": c.num_warps}): c for c in reversed(kernel.configs)}
    first, *others = reversed(tiles.values())
    yield from ((first, capability) for capability in CAPABILITIES)
    yield from ((config, CAPABILITIES[place % len(CAPABILITIES)]) for place, config in enumerate(others))


def main() -> None:
    for name, kernel, types, constants in cases():
        function = kernel.fn if isinstance(kernel, triton.runtime.Autotuner) else kernel
        for config, capability in configurations(kernel):
            options = {"enable_fp_fusion": True, "num_warps": config.num_warps, "num_stages": config.num_stages}
            whole = source(function, types, {**constants, **config.kwargs})
            compiled = triton.compile(whole, target=GPUTarget("cuda", capability, 32), options=options)
            registers, stack, instructions = resources(compiled.asm["cubin"])
            result = {
                "kernel": name,
                "configuration": str(config),
                "capability": capability,
                "ptx": len(compiled.asm["ptx"]),
                "registers": registers,
                "stack": stack,
                "shared": compiled.metadata.shared,
                "instructions": instructions,
            }
            print(json.dumps(result), flush=True)


def resources(cubin: bytes) -> tuple[int, int, int]:
    """Registers, bytes of stack, instructions."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", "--dump-sass", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack = re.findall(r"REG:(\d+) STACK:(\d+)", text)[0]
    return int(registers), int(stack), len(re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s", text, re.MULTILINE))


if __name__ == "__main__":
    main()
