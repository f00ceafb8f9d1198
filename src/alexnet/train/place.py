"""The state of a run in its checkpoint, beside the tensors, so that resuming gives identical
results.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from alexnet import schema
from alexnet.errors import CheckpointError
from alexnet.run_folder import Count, Environment, Seconds, Share

REMEDY = "Put the run's own checkpoint back, or start a new run with another --out."


@dataclass
class Window:
    """Sums since the last line of the log."""

    loss: float = 0.0
    wrong: Count = 0
    images: Count = 0
    steps: Count = 0
    start: Seconds = 0.0  # in seconds of the run

    def __post_init__(self) -> None:
        if not self.wrong <= self.images or (self.steps > 0) != (self.images > 0):
            raise ValueError(f"{self.wrong} wrong of {self.images} pictures in {self.steps} steps.")

    def count(self, loss: float, wrong: int, steps: int, batch_size: int) -> None:
        """Count `steps` batches by their sums."""
        self.loss += loss
        self.wrong += wrong
        self.images += steps * batch_size
        self.steps += steps

    def texts(self) -> tuple[str, str]:
        """The averages so far, for the display."""
        if not self.steps:
            return "", ""
        return f"loss {self.loss / self.steps:.3f}", f"top-1 error {self.wrong / self.images:.1%}"

    def values(self, lr: float, now: float) -> dict[str, float]:
        """A line for the log."""
        rate = self.images / max(now - self.start, 1e-9)
        return {"loss": self.loss / self.steps, "top1_error": self.wrong / self.images, "lr": lr, "images_per_second": rate}


@dataclass
class Place:
    """Where a run is.

    Attributes:
        epoch: epochs done.
        step: steps done of the epoch that follows.
        errors: held-out top-1 error after each epoch.
        seconds: trained so far, over all starts.
        log_length: bytes of the log that belong to what is done.
        losses: of the latest lines of the log.
        warned: causes that were named, so that a resumed run does not repeat them.
        trained_by: kinds of step, in order; more than one if a resumed run found another.
        environments: where it computed, in order; more than one if a resumed run found another.
        drawn_by: what chance numbered its crops, mirrors, colours and dropout by, in order: steps
            in earlier versions, pictures now.
    """

    epoch: Count = 0
    step: Count = 0
    errors: list[Share] = field(default_factory=list)
    seconds: Seconds = 0.0
    log_length: Count = 0
    window: Window = field(default_factory=Window)
    losses: list[float] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)
    trained_by: list[str] = field(default_factory=list)
    environments: list[Environment] = field(default_factory=list)
    drawn_by: list[Literal["step", "picture"]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if len(self.errors) != self.epoch:
            raise ValueError(f"{len(self.errors)} errors after {self.epoch} epochs.")

    @classmethod
    def of(cls, state: Any, file: Path) -> "Place":
        """From a checkpoint's JSON.

        Raises:
            CheckpointError: it holds weights alone, such as an exported file, or it is damaged.
        """
        if isinstance(state, dict) and "window" not in state:
            raise CheckpointError(f"{file} holds no state of the training: it is an exported network. {REMEDY}")
        return schema.parse(state, cls, f"{file} (its state)", CheckpointError, REMEDY)
