"""How a run of several ranks ends when something goes wrong on one of them.

Rank 0 tells it, once. Another rank leaves word in torchrun's key-value store before its connections
close; by that the others' exchanges fail, and they leave word too: that they are there. So rank 0
knows what to say: another's error, or which ranks left no word, because they were killed or hang.
Where rank 0 itself is silent, the lowest rank that left word speaks.
"""

import gc
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from alexnet.console import speak
from alexnet.errors import AlexNetError, TrainingError
from alexnet.train.parallel.notes import Gone, Notes, wait_until

#: A rank other than 0 waits so long for rank 0 to tell an error of its own, or the end of another.
TELL_SECONDS, LOST_SECONDS = 20.0, 10.0
#: Rank 0 waits so long for word of the others.
FIND_SECONDS = 3.0


class Terminated(SystemExit):
    """torchrun ends its processes, as one of them has ended."""


@contextmanager
def told_by_first(notes: Notes) -> Iterator[None]:
    """An error on any rank is raised by rank 0, once, and ends the others without a word.

    Raises:
        TrainingError: another rank failed.
    """
    _on_sigterm(_terminate)
    try:
        yield
    except BaseException as error:
        if notes.first:
            _end_first(notes, error)
        else:
            _end_other(notes, error)
        raise
    finally:
        disconnect()
    _on_sigterm(signal.SIG_DFL)


def disconnect(error: BaseException | None = None) -> None:
    """Close the connections: others that wait for this rank then fail at once.

    gloo closes one when nothing refers to it any more, and the frames that an error went through
    do: without clearing them the others learn of it only when this process ends.
    """
    import torch.distributed as dist

    if error:
        _forget(error)
    if dist.is_initialized():
        dist.destroy_process_group()


def _forget(error: BaseException | None) -> None:
    """Let go of all that the frames of an error, and of those that it came from, refer to."""
    while error:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    gc.collect()


def _terminate(number: int, _: object) -> None:
    if sys.exc_info()[0] is None:  # else an error is on its way
        raise Terminated(128 + number)


def _on_sigterm(handler: object) -> None:
    with suppress(ValueError):  # not the main thread, where signals do not arrive
        signal.signal(signal.SIGTERM, handler)  # type: ignore[arg-type]


def _end_first(notes: Notes, error: BaseException) -> None:
    """Raise another rank's error in place of what it caused here."""
    _on_sigterm(signal.SIG_IGN)  # torchrun ends all as soon as one has ended: this one has something to say
    notes.speaks()
    disconnect(error)
    cause = None
    if isinstance(error, Terminated) and error.__context__:  # what torchrun ends it for was on its way
        error = error.__context__
    if lost(error) or isinstance(error, Terminated):
        wait_until(lambda: notes.told() or not notes.without_word(), FIND_SECONDS if lost(error) else 0.0)
        cause = _cause(notes, error)
    if cause:
        raise TrainingError(cause) from error


def _end_other(notes: Notes, error: BaseException) -> None:
    """End a rank other than 0: with word of an error of its own, once rank 0 has told it."""
    if isinstance(error, Terminated):
        return
    own = not lost(error)
    if own:
        notes.tell(str(error) if isinstance(error, AlexNetError) else f"{type(error).__name__}: {error}")
    else:
        notes.tell_lost(str(error))
    disconnect(error)
    _on_sigterm(signal.SIG_DFL)
    if not wait_until(notes.spoken, TELL_SECONDS if own else LOST_SECONDS) and _lowest(notes):
        _on_sigterm(signal.SIG_IGN)
        notes.speaks()
        speak()
        if not own:
            raise TrainingError(_cause(notes, error)) from error
    wait_until(notes.spoken, TELL_SECONDS)
    if not own:
        raise SystemExit(1) from None


def _lowest(notes: Notes) -> bool:
    """Whether no lower rank but 0 has left word."""
    return not {*range(1, notes.rank)} - {*notes.without_word()}


def _cause(notes: Notes, error: BaseException) -> str | None:
    """Why an exchange failed, as far as the others have left word; None if torchrun ended this rank
    and nobody has left any.
    """
    if found := notes.told():
        return f"rank {found[0]} of {notes.count}: {found[1]}"
    if not lost(error):
        return None
    listed = ", ".join(map(str, notes.without_word()))
    then = "torchrun starts all ranks again." if notes.restarts else "Continue with --resume."
    if not listed:
        return f"the {notes.count} ranks lost their connection ({_line(error)}): check the network. {then}"
    if "imed out" in str(error):
        return (
            f"rank {listed} of {notes.count} did not answer for {notes.timeout:g} seconds (--rank-timeout): it hangs, or it "
            f"was stopped. Look at that process and its machine. {then}"
        )
    return f"rank {listed} of {notes.count} ended without a word: it was killed, or its machine ran out of memory. {then}"


def _line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def lost(error: BaseException) -> bool:
    """Whether an exchange failed because another rank was gone or did not answer."""
    import torch.distributed as dist

    if isinstance(error, AlexNetError) or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, dist.DistError | Gone) or any(word in str(error) for word in ("gloo", "NCCL", "Connection closed"))
