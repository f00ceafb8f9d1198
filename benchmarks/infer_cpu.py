"""Inference on a CPU: this network on every engine against torchvision's architecture in eager
PyTorch, timed alternately.

    python benchmarks/infer_cpu.py

Batch 1 is latency (median and 99th percentile of all repetitions), batch 32 throughput. Every
engine computes in float32 but the last one; int8 is calibrated on pictures of noise, which does not
change its speed. The peer has torchvision's layers (no normalisation, no towers, 714 M
multiply-adds against 724 M). Engines run in turns within each block, and a ratio is that of one
block, so a slow minute of the machine meets all alike; the first run of an engine in a block is not
counted. The last line is one JSON object.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from alexnet import AlexNet, engines
from alexnet.bench import torchvisions
from alexnet.data.prepare import prepare
from alexnet.data.store import Store
from alexnet.engines import Network
from alexnet.published import imagenet
from alexnet.quantise import quantise
from alexnet.run_folder import environment
from alexnet.trained import Trained
from alexnet.variants import get_variant
from alexnet.weights.importer import default_classes, published_preprocessing

PEER = "torchvision, eager"
REST = 0.1  # seconds in which the threads of the engine before, which spin while they wait for work, fall asleep


def noise_store(folder: Path, size: int, resize: str) -> Store:
    """Pictures in ImageNet's first two classes, to calibrate int8 on."""
    rng = np.random.default_rng(0)
    for name in imagenet.wordnet_ids()[:2]:
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(40):
            small = Image.fromarray(rng.integers(0, 255, (24, 24, 3), np.uint8))
            small.resize((300, 280), Image.Resampling.BICUBIC).save(folder / "photos" / name / f"{number}.jpg")
    return prepare([folder / "photos"], folder / "store", size=size, resize=resize)


def networks(trained: Trained, folder: Path) -> dict[str, Network]:
    """Everything that is timed, by name."""
    compiled = torch.compile(trained.model)
    found: dict[str, Network] = {
        PEER: torchvisions(1000).eval(),
        "PyTorch, eager": engines.of(trained).network,
        "PyTorch, compiled": lambda x: compiled(x.contiguous(memory_format=torch.channels_last)),
    }
    for name, title in (("onnxruntime", "ONNX Runtime"), ("openvino", "OpenVINO")):
        found[title] = engines.of(trained, name).network
    store = noise_store(folder, trained.preprocessing.stored_size, trained.preprocessing.resize)
    found["OpenVINO, int8"] = engines.start_openvino(quantise(trained, store).SerializeToString())
    return found


def milliseconds(network: Network, x: Tensor) -> float:
    """How long one batch takes."""
    start = time.perf_counter()
    network(x)
    return 1000 * (time.perf_counter() - start)


@torch.inference_mode()
def measure(found: dict[str, Network], batch: int, side: int, blocks: int, runs: int) -> dict[str, list[list[float]]]:
    """Milliseconds of each run, by network and block."""
    ours = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0)) * 50
    theirs = ours[:, :, :224, :224].contiguous() / 50
    inputs = {name: theirs if name == PEER else ours for name in found}
    for name, network in found.items():
        for _ in range(3):
            network(inputs[name])
    times: dict[str, list[list[float]]] = {name: [] for name in found}
    for _ in range(blocks):
        for name, network in found.items():
            time.sleep(REST)
            network(inputs[name])
            times[name].append([milliseconds(network, inputs[name]) for _ in range(runs)])
    return times


def table(times: dict[str, list[list[float]]], batch: int) -> dict[str, dict[str, float]]:
    """Print one batch size, and return it as plain data."""
    what = "ms, median" if batch == 1 else "images/s"
    print(f"batch {batch:<15}{what:>12}{'ms, 99 %':>10}{'x torchvision eager':>22}{'range':>16}")
    peer = [statistics.median(block) for block in times[PEER]]
    rows = {}
    for name, blocks in times.items():
        every = sorted(value for block in blocks for value in block)
        median, slowest = statistics.median(every), every[min(len(every) - 1, int(0.99 * len(every)))]
        ratios = [theirs / statistics.median(block) for theirs, block in zip(peer, blocks, strict=True)]
        low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
        shown = median if batch == 1 else 1000 * batch / median
        print(f"{name:21}{shown:12.1f}{slowest:10.1f}{middle:22.2f}   {low:.2f} to {high:.2f}")
        rows[name] = {
            "ms": round(median, 2),
            "ms_p99": round(slowest, 2),
            "ratio": round(middle, 3),
            "range": [round(low, 3), round(high, 3)],
        }
    return rows


def main() -> None:
    """Time every engine and print the table and the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="caffe")
    parser.add_argument("--blocks", type=int, default=9)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    variant = get_variant(arguments.variant)
    trained = Trained(AlexNet(variant).eval(), default_classes(variant), published_preprocessing(variant), {}, {})
    with tempfile.TemporaryDirectory() as folder:
        found = networks(trained, Path(folder))
        rows = {}
        for batch, runs in ((1, 12), (32, 2)):
            times = measure(found, batch, variant.input_size, arguments.blocks, runs)
            rows[f"batch_{batch}"] = table(times, batch)
    print(json.dumps({"benchmark": "infer_cpu", "variant": variant.name, **rows, "environment": environment()}))


if __name__ == "__main__":
    main()
