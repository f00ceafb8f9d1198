"""What a network gives below its last layer, for every view of every training picture: computed
once, kept in the run's folder.

RUN/features/KEY/ has a file for every `BLOCK` pictures, KEY being a hash of the weights, the
preprocessing and the store: a run that was killed goes on behind the last whole file, and features
of other weights are never taken for these. Each file holds a hash of its numbers. They are float16,
which is 5e-4 of a value at most; a pool5 of 16 views takes 295 KB a picture.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor

from alexnet import engines
from alexnet.arithmetic import Linear
from alexnet.console import duration, say
from alexnet.data.loader import in_order
from alexnet.data.preprocessing import Preprocessing
from alexnet.data.store import Split
from alexnet.errors import CheckpointError, TrainingError
from alexnet.meter import Meter
from alexnet.phrases import counted
from alexnet.run_folder import FEATURES
from alexnet.trained import Trained
from alexnet.weights.formats import onnx_graph
from alexnet.weights.native import weights_hash, write_tensors

BLOCK, BATCH = 256, 64
LARGEST = 65504.0  # of a float16
#: Up to so many pictures are fitted in 16 views, then in ten, above the last in two.
FEW, MANY = 1000, 2000
#: Views of a test, the first ones of 16.
TEN = 10
#: Side of a view that comes closer, over that of a test's; and which of its ten are taken.
CLOSER, CLOSER_VIEWS = 5 / 6, (0, 2, 4, 6, 7, 8)
#: Seconds after which the time of the whole can be told.
LEAST_SECONDS = 1
#: A forecast is corrected if it is off by this factor, and by so many seconds.
FAR_OFF, SHORT_SECONDS = 1.5, 20

Stages = dict[str, Tensor]


class View(NamedTuple):
    """A square of a stored picture: corner and side in pixels, mirrored or not."""

    top: int
    left: int
    mirrored: bool
    side: int


def views_for(pictures: int) -> Literal[2, 10, 16]:
    """Views in which so many pictures are fitted."""
    return 16 if pictures <= FEW else 10 if pictures <= MANY else 2


def views_of(preprocessing: Preprocessing, count: int) -> list[View]:
    """The centre; with its mirror; the ten of a test; or these and six that come closer: centre,
    its mirror and the corners, two of them mirrored.
    """
    whole, close = preprocessing.input_size, round(CLOSER * preprocessing.input_size)
    centre = [View(top, left, mirrored, whole) for top, left, _ in preprocessing.views(1) for mirrored in (False, True)]
    if count <= 2:
        return centre[:count]
    ten = [View(*view, whole) for view in preprocessing.views(10)]
    if count == 10:
        return ten
    closer = replace(preprocessing, input_size=close).views(10)
    return [*ten, *(View(*closer[number], close) for number in CLOSER_VIEWS)]


@dataclass(frozen=True)
class Extractor:
    """A network up to what its fully connected layers read.

    Attributes:
        trained: with its last layer, which is not used.
        stages: what to give, among pool5, fc6 and fc7: the input of the fully connected layer
            behind them.
        views: of each picture.
        view_seconds: of one view of a picture, least and most, that a forecast was made with.
    """

    trained: Trained
    stages: tuple[str, ...]
    views: int
    view_seconds: tuple[float, float] | None = None

    def key(self, split: Split, fingerprint: str) -> str:
        """A hash of everything that the features depend on."""
        model, pictures = self.trained.model, self.trained.preprocessing
        below = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("fc8.")}
        numbers = {"mean": pictures.mean, "scale": pictures.scale}
        sizes = {name: getattr(pictures, name) for name in ("stored_size", "input_size", "resize", "bgr")}
        words = [fingerprint, split.name, len(split), self.stages, self.views, sizes, repr(model.ops[:-1])]
        text = f"{json.dumps(words)} {weights_hash(below)} {weights_hash(numbers)}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def closer(self) -> "Extractor":
        """The same with the views that come closer, too."""
        return replace(self, views=TEN + len(CLOSER_VIEWS))

    def network(self) -> Callable[[Tensor], Stages]:
        """From (N, 3, K, K) pictures to (N, D) float32 of each stage."""
        model = self.trained.model
        places = [number for number, op in enumerate(model.ops) if isinstance(op, Linear)]
        convolutions = _fastest(self.trained, places[0])

        def compute(x: Tensor) -> Stages:
            x = convolutions(x).flatten(1)
            out = {"pool5": x}
            for start, end in pairwise(places):
                for op in model.ops[start:end]:
                    x = model.compute(op, x)
                out[model.ops[start].name] = x
            return {stage: out[stage] for stage in self.stages}

        return compute

    def of(self, split: Split, fingerprint: str, folder: Path, most_seconds: float | None = None) -> Stages:
        """(N, V, D) float16 of each stage, for the N pictures of a split in their order.

        Args:
            fingerprint: the store's.
            folder: the run's.
            most_seconds: that this may take.

        Raises:
            TrainingError: it would take longer; what is computed is kept.
            CheckpointError: the weights give NaN.
            StoreError: the store's files are gone or have shrunk.
            OutputError: the files cannot be written.
        """
        if self.views == TEN and (folder / FEATURES / self.closer.key(split, fingerprint)).exists():
            sixteen = self.closer.of(split, fingerprint, folder, most_seconds)  # a run that chose ten of them
            return {stage: values[:, :TEN].contiguous() for stage, values in sixteen.items()}
        key = self.key(split, fingerprint)
        starts = range(0, len(split), BLOCK)
        files = {start: folder / FEATURES / key / f"{start:08}.safetensors" for start in starts}
        blocks = {start: _read(file, key) for start, file in files.items() if file.exists()}
        ready = {start: block for start, block in blocks.items() if block is not None}
        if ready:
            there = sum(len(next(iter(block.values()))) for block in ready.values())
            say(f"Using the features of {counted(there, 'picture')} in {folder / FEATURES}.")
        left = [start for start in starts if start not in ready]
        if left:
            files[0].parent.mkdir(parents=True, exist_ok=True)
            ready |= dict(self._compute(split, left, files, key, most_seconds))
        return {stage: torch.cat([ready[start][stage] for start in starts]) for stage in self.stages}

    @torch.inference_mode()
    def _compute(
        self, split: Split, starts: list[int], files: dict[int, Path], key: str, most_seconds: float | None
    ) -> Iterator[tuple[int, Stages]]:
        network, began = self.network(), time.monotonic()
        count = sum(min(BLOCK, len(split) - start) for start in starts)
        with Meter("computing features", count, "images") as meter:
            for start in starts:
                parts: list[Stages] = []
                for first in range(start, min(start + BLOCK, len(split)), BATCH):
                    records = torch.from_numpy(split.take(slice(first, min(first + BATCH, start + BLOCK))))
                    parts.append(self._views(network, records))
                    meter.add(len(records))
                    _in_time(time.monotonic() - began, meter.done, count, most_seconds)
                    self._correct(time.monotonic() - began, meter.done, len(records), count)
                block = self._joined(parts)
                _write(files[start], block, key)
                yield start, block

    def _correct(self, seconds: float, done: int, batch: int, count: int) -> None:
        """With half of the pictures done, say how long they take if the forecast was far off."""
        if self.view_seconds is None or done == count or not 2 * (done - batch) < count <= 2 * done:
            return
        least, most = (self.views * count * one for one in self.view_seconds)
        needed = seconds * count / done
        forecast = most if needed > most else least
        if least / FAR_OFF <= needed <= most * FAR_OFF or abs(needed - forecast) < SHORT_SECONDS:
            return
        say(
            f"The forecast at the start was wrong: computing features takes about {duration(needed)} in all, not "
            f"{duration(forecast)}; {duration(needed - seconds)} of it is left."
        )

    @torch.inference_mode()
    def computed(self, split: Split, label: str) -> Stages:
        """As `of`, of which nothing is kept."""
        network, parts = self.network(), []
        with Meter(label, len(split), "images") as meter:
            for records, _ in in_order(split, BATCH):
                parts.append(self._views(network, records))
                meter.add(len(records))
        return self._joined(parts)

    def _joined(self, parts: list[Stages]) -> Stages:
        return {stage: torch.cat([part[stage] for part in parts]) for stage in self.stages}

    @torch.inference_mode()
    def size_of_some(self, split: Split) -> float:
        """Mean squared norm of the first stage of some pictures, their mean taken out."""
        rows = self._views(self.network(), torch.from_numpy(split.take(slice(0, BATCH))))[self.stages[0]][:, 0].float()
        return float((rows - rows.mean(0)).square().sum(1).mean())

    @torch.inference_mode()
    def seconds_a_pass(self, split: Split) -> float:
        """Seconds that one view of every picture takes here."""
        network, pictures = self.network(), self.trained.preprocessing
        records = torch.from_numpy(split.take(slice(0, BATCH))).to(pictures.mean.device)
        images = pictures.view(records, *pictures.views(1)[0])
        network(images)
        began = time.monotonic()
        network(images)
        return (time.monotonic() - began) * len(split) / len(records)

    def _views(self, network: Callable[[Tensor], Stages], records: Tensor) -> Stages:
        pictures = self.trained.preprocessing
        records = records.to(pictures.mean.device)
        seen = [network(_seen(pictures, records, view)) for view in views_of(pictures, self.views)]
        stacked = {stage: torch.stack([one[stage] for one in seen], 1) for stage in self.stages}  # (N, V, D)
        if wrong := [stage for stage, values in stacked.items() if values.isnan().any()]:
            raise CheckpointError(
                f"the weights compute NaN in {wrong[0]}, as weights do whose training has diverged: begin with other ones."
            )
        return {stage: values.clamp(-LARGEST, LARGEST).half().cpu() for stage, values in stacked.items()}


def _seen(pictures: Preprocessing, records: Tensor, view: View) -> Tensor:
    """A view as the network's input: (N, bytes) to (N, 3, K, K)."""
    top, left, mirrored, side = view
    if side == pictures.input_size:
        return pictures.view(records, top, left, mirrored)
    close = replace(pictures, input_size=side).view(records, top, left, mirrored)
    return F.interpolate(close, (pictures.input_size, pictures.input_size), mode="bilinear")


def _fastest(trained: Trained, first: int) -> engines.Network:
    """The operations before `first`: OpenVINO on a CPU where it is installed, else PyTorch."""
    model = trained.model
    if model.device.type == "cpu" and find_spec("openvino") and find_spec("onnx"):
        return engines.start_openvino(onnx_graph.up_to(trained, model.ops[first].name).SerializeToString())

    def network(x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        for op in model.ops[:first]:
            x = model.compute(op, x)
        return x

    return network


def _in_time(seconds: float, done: int, count: int, most: float | None) -> None:
    needed = seconds * count / max(done, 1)
    if most is not None and needed > most and seconds > LEAST_SECONDS:
        raise TrainingError(
            f"minutes (={most / 60:g}) is too few for one pass over the pictures, which takes about {needed:,.0f} s here. "
            "What was computed is kept: run it again with more --minutes, or without."
        )


# --- the files ------------------------------------------------------------------------------------


def _write(path: Path, block: Stages, key: str) -> None:
    write_tensors(path, block, {"key": key, "sha256": weights_hash(block)})


def _read(path: Path, key: str) -> Stages | None:
    """A block, or None if it is damaged, which is said."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            block = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a dict
        if header.get("key") == key and header.get("sha256") == weights_hash(block):
            return block
        problem = "its numbers have changed since they were written"
    except (OSError, SafetensorError) as error:
        problem = str(error)
    say(f"{path} is damaged ({problem}): its features are computed again.")
    return None
