"""Compile every kernel of a training step for a GPU, in many processes, into Triton's cache.

    python benchmarks/compile_step.py                               # for the GPU that is here
    python benchmarks/compile_step.py --unpack kernels.tar.gz --pack kernels.tar.gz
    python benchmarks/compile_step.py --capability 90 --processes 2 # without a GPU

A step takes about 210 kernels in all the tiles that may be chosen for them, and 150 others if its
towers are apart in memory, at half a second to two and a half each; where it runs first, Triton
compiles one after the other. Here each process takes two full-size steps on the CPU in which
launches only count and compile, every process its share. So what is compiled is what the step
launches, argument by argument. What was compiled before is found in the cache (~/.triton/cache, or
TRITON_CACHE_DIR).

A batch is of 16 pictures: for any multiple of 16 the kernels are the same.

The packed cache has the compiled kernels, the tiles that were chosen by measurement, and Triton's
key of itself: another Triton would find nothing in it, so there it is left packed.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import JITFunction
from triton.runtime.cache import triton_key

from alexnet import kernels
from alexnet.bench import noise, preprocessing_of
from alexnet.data.augment import Augmentation
from alexnet.data.feed import open_feed
from alexnet.fused import convolution_shapes
from alexnet.kernels.convolutions import RELU, Passes
from alexnet.train.recipes import Recipe
from alexnet.train.start import Start
from alexnet.train.steps.check import PICTURES
from alexnet.train.steps.fused import FusedStep, build
from alexnet.variants import Variant, get_variant

BATCH = 16
KEY = "triton_key.txt"
KEPT = (".cubin", ".json")  # nothing that the host executes
LARGEST = 2**28  # bytes of one file in a cache


class Driver:
    """Of a GPU that need not be there."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        """What to compile for."""
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        """Any."""
        return 0

    def get_current_stream(self, device: int) -> int:  # noqa: ARG002 - as Triton calls it
        """Any."""
        return 0


def compile_share(variant: Variant, capability: int, share: int, shares: int, batch: int = BATCH) -> list[str]:
    """Take a step in which each launch compiles its kernel, if it is one of this share, and no
    kernel runs; the step's kernels in order, of all shares.
    """
    seen: dict[tuple[str, str], None] = {}

    def hook(*, key: object, fn: Any, **_: Any) -> bool:
        """Whether to leave it out."""
        place = fn.name, str(key)
        number = seen.setdefault(place, None) or list(seen).index(place)
        return number % shares != share

    triton.runtime.driver.set_active(Driver(capability))
    triton.knobs.runtime.jit_cache_hook = hook
    with_launches(run_without_launching, run_all_without_launching)
    walk(variant, batch)
    return [" ".join(place) for place in seen]


def with_launches(jit: Callable[..., Any], tuned: Callable[..., Any]) -> None:
    """Replace what a launch does, for the rest of the process."""
    JITFunction.run, triton.runtime.Autotuner.run = jit, tuned
    kernels.on_kernels = lambda x: x.dtype != torch.float64


RUN = JITFunction.run


def run_without_launching(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:  # noqa: ARG001
    """Compile for these arguments."""
    RUN(self, *args, grid=grid, warmup=True, **kwargs)


def run_all_without_launching(self: Any, *args: Any, **kwargs: Any) -> None:
    """Each configuration that may be chosen."""
    self.nargs = dict(zip(self.arg_names, args, strict=False))  # where Triton looks for them
    self.best_config = self.configs[0]
    for config in self.prune_configs(kwargs):
        self.fn.run(*args, **kwargs, **config.all_kwargs())


def walk(variant: Variant, batch: int) -> None:
    """A step in bfloat16 and the values that its check compares in float32, with towers together
    and apart, the convolutions that take a ReLU, and the update with each tile; its numbers mean
    nothing.
    """
    from alexnet.kernels.gpu import sgd_step

    measured = sgd_step._measured
    measured.cache_clear()
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]  # as the check does: the library's
    for apart in (False, True):
        step = made(variant, batch, apart)
        step._step()
        weights = {name: weight.detach() for name, weight in step.model.named_parameters()}
        step.sample(0, 0, min(PICTURES, batch), step.leaves_of(weights, torch.float32))
        step.close()
    for shape in convolution_shapes(variant, batch, torch.bfloat16, torch.device("cpu")).values():
        for apart in {False, shape.groups > 1} if shape.relu else ():
            replace(shape, apart=apart).call_timed("forward", RELU)()
    gradients = {name: torch.zeros_like(leaf) for name, leaf in step.leaves.items()}
    for config in sgd_step.CONFIGS:
        sgd_step._measured = lambda *_, config=config: config  # type: ignore[assignment]
        for launch in step.launches:
            launch.update(gradients, 0.9, False)
    sgd_step._measured = measured


def made(variant: Variant, batch: int, apart: bool) -> FusedStep:
    """A step on the CPU whose convolutions are all our own, with towers apart or together."""
    preprocessing = preprocessing_of(variant)
    split = noise(preprocessing.stored_size, batch, variant.num_classes)
    start = Start.on_records(Recipe(), variant, split, Augmentation(preprocessing, True, True, np.eye(3))).in_batches_of(batch)
    ways = {f"conv{number}": Passes("own", "own", "own", apart) for number in range(1, 6)}
    feed = open_feed("resident", start.loader, torch.device("cpu"))
    return build(feed, start.model, start.augmentation, start.optimiser, torch.bfloat16, ways=ways)


def compile_all(variant: str, capability: int, processes: int) -> int:
    """All shares at once; how many kernels the step has.

    Raises:
        SystemExit: a process failed.
    """
    command = [sys.executable, __file__, "--variant", variant, "--capability", str(capability), "--share"]
    quiet = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    quiet.pop("TRITON_INTERPRET", None)
    start, pipe = time.monotonic(), subprocess.PIPE
    running = [
        subprocess.Popen([*command, f"{n}/{processes}"], stdout=pipe, stderr=pipe, text=True, env=quiet)
        for n in range(processes)
    ]
    answers = [one.communicate() for one in running]
    for one, (_, error) in zip(running, answers, strict=True):
        if one.returncode:
            raise SystemExit(f"A process that compiles kernels failed:\n{error[-3000:]}")
    count = json.loads(answers[0][0].splitlines()[-1])
    print(f"{count} kernels for capability {capability} in {time.monotonic() - start:.0f} s, {processes} processes", flush=True)
    return int(count)


# --- the cache, packed ----------------------------------------------------------------------------


def folder() -> Path:
    """Triton's cache."""
    return Path(triton.knobs.cache.dir)


def pack(file: Path) -> None:
    """What the GPU runs of the cache, and which tiles were chosen."""
    kept = [path for path in sorted(folder().glob("*/*")) if path.suffix in KEPT]
    with tarfile.open(file, "w:gz", compresslevel=6) as tar:
        key = triton_key().encode()
        member = tarfile.TarInfo(KEY)
        member.size = len(key)
        tar.addfile(member, io.BytesIO(key))
        for path in kept:
            tar.add(path, path.relative_to(folder()).as_posix())
    print(f"{len(kept)} files of {folder()} packed into {file}: {file.stat().st_size / 2**20:.1f} MiB", flush=True)


def unpack(file: Path) -> int:
    """Into Triton's cache; how many files. None of another Triton's."""
    with tarfile.open(file) as tar:
        first = tar.next()
        key = tar.extractfile(first) if first and first.name == KEY else None
        if key is None or key.read(2**20).decode() != triton_key():
            print(f"{file} was made by another Triton than {triton.__version__} as it is here: not unpacked.", flush=True)
            return 0
        count = 0
        for member in tar:
            path = Path(member.name)
            if member.isfile() and len(path.parts) == 2 and ".." not in path.parts and path.suffix in KEPT:
                stored = tar.extractfile(member)
                assert stored is not None and member.size < LARGEST, member.name
                count += put(folder() / path, stored.read())
    print(f"{count} files of {file} unpacked into {folder()}", flush=True)
    return count


def put(path: Path, content: bytes) -> bool:
    """A file of the cache, unless it is there; groups of files name their paths, which are others
    here.
    """
    if path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.startswith("__grp__"):
        group = json.loads(content)
        names = [name for name in group["child_paths"] if Path(name).suffix in KEPT]
        group["child_paths"] = {name: str(path.parent / name) for name in names}
        content = json.dumps(group).encode()
    path.write_bytes(content)
    return True


def main() -> None:
    """Unpack, compile, pack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="paper")
    parser.add_argument("--capability", type=int, help="90 for 9.0; that of the GPU here if not named")
    parser.add_argument("--processes", type=int, default=min(16, os.cpu_count() or 1))
    parser.add_argument("--unpack", type=Path, metavar="FILE", help="of an earlier --pack, first")
    parser.add_argument("--pack", type=Path, metavar="FILE", help="Triton's cache, last")
    parser.add_argument("--no-compiling", action="store_true", help="unpack and pack only")
    parser.add_argument("--share", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.share:
        share, shares = map(int, arguments.share.split("/"))
        print(len(compile_share(get_variant(arguments.variant), arguments.capability, share, shares)))
        return
    if arguments.unpack:
        unpack(arguments.unpack)
    if not arguments.no_compiling:
        if not arguments.capability and not torch.cuda.is_available():
            raise SystemExit("No CUDA device is here: name what to compile for, such as --capability 90.")
        capability = arguments.capability or int("{}{}".format(*torch.cuda.get_device_capability()))
        compile_all(arguments.variant, capability, arguments.processes)
    if arguments.pack:
        pack(arguments.pack)


if __name__ == "__main__":
    main()
