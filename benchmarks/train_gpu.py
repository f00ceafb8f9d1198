"""Training on a GPU, in three stages of at most ten minutes, each of which keeps what it measured.

    python benchmarks/train_gpu.py 1           # right? which convolution is fastest? batch 128
    python benchmarks/train_gpu.py 2           # 1024 and 256, part by part, beside predictions
    python benchmarks/train_gpu.py 3           # a minute of training, an epoch of ImageNet's size
    python benchmarks/train_gpu.py 3 --out photos --part photos --data STORE

1. The machine; all kernels compiled, in many processes (`compile_step.py`); the quick check
   (`check_gpu.py`); the ceilings: a bfloat16 product of 8192 x 8192 matrices, a copy of 1 GiB
   within the GPU's memory; every pass of every convolution in every way; 20 seconds of training;
   the step with and without a second stream for its update; the step against its peers.
2. The same bake-off, every part of the step by itself (`gpu_parts.py`) beside its floor and its
   prediction, the contest, and 20 seconds, for each size of batch.
3. A minute of training; an epoch over 1,281,167 resident records (`full_epoch.py`), which needs 117
   GiB; with `--data`, the fused step against the plain one on photos (`real_data.py`).

A contest goes in turns, by the GPU's events: our network naive, under AMP and compiled,
torchvision's under AMP and compiled, the compiled ones recorded as CUDA graphs too. The peers get
one ready batch; ours makes its batches from resident records. Ratios are block by block. The loss
is read every 20 steps, as in training.

A part that fails is printed and passed over; one that would begin after `--seconds` is left out.
After each part the folder is written anew: `result.json` with raw times, chosen ways and tiles,
versions, driver and clocks; `log.txt`; and a `README.md` that makes it a record. Named again, the
folder keeps the parts that were measured before. It exits with 1 if a check failed, or photos show
that the two steps differ.
"""

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gpu_parts
import real_data
import torch
from full_epoch import IMAGENET, FullEpochs, check_store
from torch import Tensor

from alexnet import arithmetic, kernels
from alexnet.bench import Scene, Steps, Timing, contest, product_flops, seconds
from alexnet.devices import set_precision
from alexnet.errors import AlexNetError, TrainingError
from alexnet.run_folder import environment
from alexnet.train.health.signals import gradient_norms, update_ratios
from alexnet.train.health.signals import look as look_at
from alexnet.train.health.watch import LOOK_STEPS
from alexnet.train.steps.fused import FusedStep, choose_ways
from alexnet.variants import Variant, get_variant

HERE = Path(__file__).parent
GPU = torch.device("cuda:0")  # as tensors there name it
BLOCKS = 5
PREDICTED = {128: 49_000, 1024: 63_000}  # images a second of an H200, from the parts' predictions
WANTED = {128: 64_000, 1024: 90_000}  # images a second of an H200, kept up
LOOK_SHARE = 0.01  # of the steps' time, for looking at the network
WANTED_DATA = 1_000_000  # images a second of the data path alone
WANTED_TIMES = {"torchvision's, AMP": 3.0, "torchvision's, AMP, compiled": 1.5}
OURS = "fused, from resident records"
BATCHES = {1: [128], 2: [1024, 256], 3: [128, 1024]}
KEPT_UP = {1: 20.0, 2: 20.0, 3: 60.0}  # seconds


# --- the whole step -------------------------------------------------------------------------------


def copy_speed() -> float:
    """Bytes a second that a copy within the GPU's memory reads and writes."""
    source = torch.randint(0, 255, (2**30,), dtype=torch.uint8, device=GPU)
    target = torch.empty_like(source)
    seconds(lambda: target.copy_(source), GPU, 3)
    return 2.0 * 2**30 / min(seconds(lambda: target.copy_(source), GPU, 10) for _ in range(3))


def print_contest(rows: list[Timing], batch: int) -> None:
    """The table of the step and its peers; ratios are ours over theirs, block by block."""
    print(f"\nbatch {batch}{'':26}{'images/s':>10}{'steps/s':>10}{'of the floor':>14}{'ours is':>10}{'range':>18}")
    for row in rows:
        share = f"{row.rate / row.floor:.1%}" if row.floor else ""
        span = f"{min(row.ratios):.2f} to {max(row.ratios):.2f}"
        rates = f"{row.rate:10,.0f}{row.rate / batch:10,.1f}"
        span += met(statistics.median(row.ratios), WANTED_TIMES.get(row.name), "x")
        print(f"{row.name:34}{rates}{share:>14}{statistics.median(row.ratios):9.2f}x{span:>18}", flush=True)
    if batch in PREDICTED:
        print(f"predicted for an H200: {PREDICTED[batch]:,}; measured {rows[0].rate / PREDICTED[batch]:.2f} of it")


def met(found: float, wanted: float | None, unit: str, most: bool = False) -> str:
    """Whether a figure for an H200 is reached, or not exceeded; nothing where there is none."""
    if wanted is None:
        return ""
    reached = found <= wanted if most else found >= wanted
    return f"  ({'met' if reached else 'missed'}: at {'most' if most else 'least'} {wanted:,.10g}{unit} wanted of an H200)"


def against_peers(variant: Variant, batch: int, flops: float, compiled: bool = True) -> dict[str, Any]:
    """The step in turns with its peers; its data path; what looking at the network costs."""
    floor = flops / arithmetic.training_flop(variant.layers())
    scene = Scene(variant, GPU, batch, compile=compiled)
    try:
        rows = contest({OURS: scene.training()} | scene.peers(), GPU, batch, floor, BLOCKS, 0)
        if not rows or rows[0].name != OURS:
            raise TrainingError("the fused step does not run here, as said above")
        print_contest(rows, batch)
        (data,) = contest({"data": scene.data()}, GPU, batch, None, BLOCKS, 0)
        print(f"data path alone: {data.rate:,.0f} images/s{met(data.rate, WANTED_DATA, '')}")
        fused = scene._fused
        assert fused is not None
        share = look_share(fused, batch / rows[0].rate)
        wanted = met(share, LOOK_SHARE, "", most=True)
        print(f"looking at the network once in {LOOK_STEPS} steps takes {share:.2%} of their time{wanted}")
        return {
            "rows": {row.name: row.as_json() | {"rates": [round(rate, 1) for rate in row.rates]} for row in rows},
            "data_images_per_second": round(data.rate),
            "look_share": round(share, 5),
            "ways": {name: str(ways) for name, ways in fused.ways.items()},
        }
    finally:
        scene.close()


def look_share(fused: FusedStep, step: float) -> float:
    """Time that a watched step takes longer than another, relative to the steps
    from one look to the next.
    """

    def look(images: Tensor) -> None:
        look_at(fused.model, images)
        gradient_norms(fused.model)
        update_ratios(fused.model, fused.optimiser)

    run = Steps(fused.feed.loader, lambda epoch, number: fused.take(epoch, number, 1e-4, 1.0, look))
    seconds(run, GPU, 3)
    return (seconds(run, GPU, 10) - step) / (LOOK_STEPS * step)


def sustained(variant: Variant, batch: int, duration: float, flops: float) -> dict[str, Any]:
    """Images a second over `duration` seconds of the host's clock, from an idle GPU to an idle
    GPU.
    """
    scene = Scene(variant, GPU, batch, compile=False)
    try:
        fused = scene.fused()
        run = Steps(fused.feed.loader, lambda epoch, step: fused.take(epoch, step, 1e-4, 1.0))
        seconds(run, GPU, 10)  # recorded by then
        wait()
        start, taken = time.monotonic(), 0
        while not taken or time.monotonic() - start < duration:
            for _ in range(20):  # as often as training reads the loss
                run()
            taken += 20
            fused.collect()
        wait()
        rate = taken * batch / (time.monotonic() - start)
    finally:
        scene.close()
    share = rate * arithmetic.training_flop(variant.layers()) / flops
    print(f"over {duration:.0f} s: {rate:,.0f} images/s, {rate / batch:,.1f} steps/s, {share:.1%} of the floor; {clocks()}")
    minutes = 90 * IMAGENET / rate / 60
    print(f"90 epochs of ImageNet at that rate: {minutes:.1f} minutes{met(rate, WANTED.get(batch), ' images/s')}")
    return {
        "seconds": duration,
        "steps": taken,
        "images_per_second": round(rate, 1),
        "share": round(share, 4),
        "clocks": clocks(),
    }


def streams(variant: Variant, batch: int) -> dict[str, Any]:
    """The step with its update beside the convolutions and after them, in turns."""
    scenes = {name: Scene(variant, GPU, batch, compile=False) for name in ("update beside", "update after")}
    try:
        steps = {name: scene.fused(beside=name == "update beside") for name, scene in scenes.items()}
        runs = {name: Steps(one.feed.loader, partial(taken, one)) for name, one in steps.items()}
        rows = contest(runs, GPU, batch, None, BLOCKS, 0)
    finally:
        for scene in reversed(scenes.values()):  # each gives back the stream that it found
            scene.close()
    for row in rows:
        print(f"{row.name}: {row.rate:,.0f} images/s, {1e6 * batch / row.rate:,.0f} us a step")
    return {row.name: row.as_json() | {"rates": row.rates} for row in rows}


def taken(fused: FusedStep, epoch: int, step: int) -> None:
    """One step at a rate that noise does not mind."""
    fused.take(epoch, step, 1e-4, 1.0)


def wait() -> None:
    """Until the GPU has done all."""
    if GPU.type == "cuda":
        torch.cuda.synchronize()


def parts_of(variant: Variant, batch: int, flops: float, speed: float) -> dict[str, Any]:
    """Each by itself."""
    return gpu_parts.print_parts(variant, batch, choose_ways(variant, batch, torch.bfloat16, GPU), flops, speed)


def epochs(variant: Variant, store: Any, batches: list[int]) -> dict[str, Any]:
    """One over as many records as ImageNet has, for each size of batch."""
    records = FullEpochs(variant, store, GPU)
    return {str(batch): records.run(batch) for batch in batches}


# --- the machine ----------------------------------------------------------------------------------


def asked_of_gpu(fields: str) -> str:
    """What the driver says; printed, never set."""
    query = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.strip().replace("\n", "; ")
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"


def clocks() -> str:
    """The card's clocks, power and temperature now."""
    return asked_of_gpu("clocks.sm,clocks.mem,power.draw,temperature.gpu")


def commit() -> str:
    """Of the working tree, where it is one."""
    try:
        done = subprocess.run(
            ["git", "-C", str(HERE), "describe", "--always", "--dirty"], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"


def machine() -> dict[str, Any]:
    """Hardware, driver and versions, printed."""
    found = environment() | {
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "driver": asked_of_gpu("driver_version,memory.total,power.limit"),
        "clocks": clocks(),
        "commit": commit(),
    }
    print("; ".join(f"{name} {value}" for name, value in found.items()))
    return found


def tiles() -> dict[str, dict[str, str]]:
    """The tile that each kernel runs with, by its key."""
    from alexnet.kernels.gpu import augment, bias_relu, convolve, relu_lrn_pool, sgd_step

    named = {
        f"{module.__name__.rpartition('.')[2]}.{name}": kernel
        for module in (augment, bias_relu, convolve, relu_lrn_pool, sgd_step)
        for name, kernel in vars(module).items()
        if hasattr(kernel, "configs")
    }
    return {name: {str(key): str(config) for key, config in kernel.cache.items()} for name, kernel in named.items()}


# --- a stage --------------------------------------------------------------------------------------


class Stage:
    """A folder, and the parts that are measured into it.

    Attributes:
        right: whether every check was passed.
    """

    def __init__(self, number: int, folder: Path, time_allowed: float, chosen: list[str]) -> None:
        self.number, self.folder, self.chosen = number, folder, chosen
        self.end, self.right = time.monotonic() + time_allowed, True
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "result.json"
        self.found: dict[str, Any] = json.loads(self.file.read_text()) if self.file.exists() else {"parts": {}}

    def part(self, name: str, measure: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any] | None:
        """What it gave; None, with a line that says why, if it failed or was left out. By its name,
        or the name's first word, a part is chosen.
        """
        if self.chosen and name not in self.chosen and name.split()[0] not in self.chosen:
            return None
        if time.monotonic() > self.end:
            print(f"{name}: left out, as the time is used up.", flush=True)
            return None
        print(f"\n# {name}", flush=True)
        start, result = time.monotonic(), None
        gc.collect()
        if GPU.type == "cuda":
            torch.cuda.empty_cache()
        try:
            result = measure(*arguments)
            kept: dict[str, Any] = {"result": result}
        except Exception as error:  # the rest is worth having
            kept = {"error": f"{type(error).__name__}: {(str(error) or 'no message').splitlines()[0]}"}
            print(f"{name} FAILED: {kept['error']}", flush=True)
        self.found["parts"][name] = kept | {"seconds": round(time.monotonic() - start, 1)}
        self.save()
        return result

    def save(self) -> None:
        """The folder, as it can be published now."""
        self.found |= {"benchmark": f"train_gpu {self.number}", "tiles": tiles(), "environment": environment()}
        self.file.write_text(json.dumps(self.found, indent=1) + "\n")
        log = self.folder / "log.txt"
        text = log.read_text() if log.exists() else ""
        (self.folder / "README.md").write_text(
            f"# Training on a GPU, stage {self.number}\n\n`python benchmarks/train_gpu.py {' '.join(sys.argv[1:])}`\n\n"
            f"`result.json` has the machine, the raw times, and the ways and tiles that were chosen.\n\n```text\n{text}```\n"
        )


class Both:
    """What is printed, and a file of it."""

    def __init__(self, file: Path) -> None:
        self.screen, self.file = sys.stdout, file.open("a")

    def write(self, text: str) -> int:
        """To both."""
        self.file.write(text)
        self.file.flush()
        return self.screen.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.screen, name)


def script(name: str, *arguments: str) -> str:
    """The output of a benchmark of this folder, printed as it comes.

    Raises:
        TrainingError: it failed.
    """
    command = [sys.executable, "-W", "default", str(HERE / name), *arguments]
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        assert running.stdout
        for line in running.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    if running.returncode:
        raise TrainingError(f"{name} found something wrong, as said above")
    return "".join(lines)


def compiled(arguments: argparse.Namespace) -> dict[str, Any]:
    """All kernels, before anything is timed."""
    cache = ["--unpack", str(arguments.cache)] if arguments.cache and arguments.cache.exists() else []
    return {"printed": script("compile_step.py", "--variant", arguments.variant, *cache).splitlines()}


def packed(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was compiled, and the tiles that were chosen."""
    return {"printed": script("compile_step.py", "--no-compiling", "--pack", str(arguments.cache)).splitlines()}


def checked(arguments: argparse.Namespace) -> dict[str, Any]:
    """The quick check, in a process of its own: a kernel may break more than its result."""
    found: dict[str, Any] = json.loads(script("check_gpu.py", "--variant", arguments.variant).splitlines()[-1])
    return found


def ceilings() -> dict[str, Any]:
    """Of products and of copies."""
    flops, speed = product_flops(GPU, "bf16"), copy_speed()
    print(f"{flops / 1e12:.0f} TFLOP/s (bfloat16 product), {speed / 1e12:.2f} TB/s (copy); {clocks()}", flush=True)
    return {"product_flops": flops, "copy_bytes_per_second": speed}


def run(stage: Stage, variant: Variant, arguments: argparse.Namespace, photos: real_data.Photos | None) -> None:
    """The parts of a stage."""
    stage.part("machine", machine)
    stage.part("compiling", compiled, arguments)
    if stage.number == 1:
        stage.right &= stage.part("check", checked, arguments) is not None or not chosen(stage, "check")
    ceiling = stage.part("ceilings", ceilings) or stage.found["parts"].get("ceilings", {}).get("result") or H200
    flops, speed = ceiling["product_flops"], ceiling["copy_bytes_per_second"]
    if stage.number < 3:
        for batch in arguments.batch or BATCHES[stage.number]:
            stage.part(f"bake-off {batch}", gpu_parts.bake_off, variant, batch, flops, speed)
            if stage.number == 2:
                stage.part(f"parts {batch}", parts_of, variant, batch, flops, speed)
            stage.part(f"kept-up {batch}", sustained, variant, batch, KEPT_UP[stage.number], flops)
            stage.part(f"streams {batch}", streams, variant, batch)
            stage.part(f"contest {batch}", against_peers, variant, batch, flops)
    else:
        batches = arguments.batch or BATCHES[3]
        for batch in batches:
            stage.part(f"kept-up {batch}", sustained, variant, batch, KEPT_UP[3], flops)
        stage.part("epochs", epochs, variant, photos.store if photos else None, batches)
        if photos:
            learned = stage.part("photos", real_data.compare, photos, arguments)
            stage.right &= learned is None or bool(learned["agree"])
    if arguments.cache:
        stage.part("packing", packed, arguments)


H200 = {"product_flops": 790e12, "copy_bytes_per_second": 4.3e12}  # where the ceilings were not measured


def chosen(stage: Stage, name: str) -> bool:
    """Whether a part was to be measured."""
    return not stage.chosen or name in stage.chosen


def asked() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", type=int, choices=sorted(BATCHES))
    parser.add_argument("--variant", default="paper")
    parser.add_argument("--batch", type=int, nargs="+", help="sizes; the stage's own if not named")
    parser.add_argument("--part", nargs="+", default=[], metavar="NAME", help="these parts only, such as check, contest")
    parser.add_argument("--seconds", type=float, default=480, help="after so many no part begins")
    parser.add_argument("--cache", type=Path, metavar="FILE", help="compiled kernels: unpacked first, packed last")
    photos = parser.add_argument_group("on photos")
    photos.add_argument("--data", metavar="STORE", help="compare the fused step with the plain one on it")
    real_data.add_arguments(photos)
    arguments = parser.parse_args()
    arguments.folder = arguments.out or Path(f"gpu-{arguments.stage}")
    arguments.out = Path(f"{arguments.folder}-networks")  # beside the record, which holds no weights
    real_data.check(parser, arguments)
    return arguments


def demand_gpu() -> None:
    """Stop where nothing can be measured; begin a stream of our own, as graphs are
    recorded on none but such. Precision is set before anything is chosen by its time.
    """
    if not torch.cuda.is_available():
        raise SystemExit("No CUDA device is here, and this measures one. `alexnet bench` measures any machine.")
    if reason := kernels.lacking(GPU):
        raise SystemExit(f"The kernels cannot run on {torch.cuda.get_device_name()}: {reason}.")
    set_precision("bf16", GPU)
    torch.manual_seed(0)
    torch.cuda.set_stream(torch.cuda.Stream())


def opened(arguments: argparse.Namespace, variant: Variant) -> real_data.Photos | None:
    """The store with the recipes to compare on, looked at before anything is measured."""
    if not arguments.data:
        return None
    try:
        photos = real_data.opened(arguments, GPU)
        check_store(variant, photos.store)
    except AlexNetError as error:
        raise SystemExit(str(error)) from None
    return photos


def main() -> None:
    """One stage."""
    arguments = asked()
    variant = get_variant(arguments.variant)
    demand_gpu()
    photos = opened(arguments, variant)
    stage = Stage(arguments.stage, arguments.folder, arguments.seconds, arguments.part)
    screen, sys.stdout = sys.stdout, Both(arguments.folder / "log.txt")  # type: ignore[assignment]
    try:
        run(stage, variant, arguments, photos)
        stage.save()
    finally:
        sys.stdout.file.close()  # type: ignore[attr-defined]
        sys.stdout = screen
    print(f"Written to {arguments.folder}.")
    if not stage.right:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
