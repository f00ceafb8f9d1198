"""A run's curves for TensorBoard. Imported only where it is installed: the extra `tensorboard`."""

import os
import platform
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import scalar

from alexnet.run_folder import EVENTS


class Board:
    """Curves for TensorBoard, written as they come.

    PyTorch's `SummaryWriter` writes from a thread of its own: a full disk shows there,
    as a traceback, and later.
    """

    def __init__(self, folder: Path, step: int) -> None:
        """`step`: what an interrupted start drew from here on is taken back."""
        folder.mkdir(parents=True, exist_ok=True)
        name = EVENTS.replace("*", f"{time.time():.0f}.{platform.node()}.{os.getpid()}.{time.monotonic_ns()}")
        self._file = open(folder / name, "xb", buffering=0)  # noqa: SIM115 - closed in `close`
        self._records = RecordWriter(self._file)
        try:
            self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
            self._write(Event(wall_time=time.time(), step=step, session_log=SessionLog(status=SessionLog.START)))
        except OSError:
            self.close()
            raise

    def add(self, name: str, value: float, step: int) -> None:
        """A point of a curve."""
        self._write(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())

    def close(self) -> None:
        """Close the file."""
        self._file.close()
