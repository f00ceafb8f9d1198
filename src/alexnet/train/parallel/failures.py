"""How a run of several ranks ends when something goes wrong on one of them.

Rank 0 reports it, once. A rank that fails writes its error to torchrun's key-value store before it
closes its connections. That makes the exchanges of the others fail, and they write that they are
still there. So rank 0 can report another's error, or name the ranks that wrote nothing because they
were killed or hang. If rank 0 itself is silent, the lowest rank that wrote something reports.
"""

import gc
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from alexnet.console import speak
from alexnet.errors import AlexNetError, TrainingError
from alexnet.train.parallel.notes import Gone, Notes, named, wait_until

#: Seconds that another rank waits for rank 0 to report its own error, or a lost connection.
REPORT_SECONDS, LOST_SECONDS = 20.0, 10.0
#: Seconds that rank 0 waits for messages of the others.
WORD_SECONDS = 3.0


class Terminated(SystemExit):
    """torchrun ends this process, as another one has ended."""


@contextmanager
def reported_once(notes: Notes) -> Iterator[None]:
    """Have an error on any rank raised by rank 0 only, once; the other ranks end silently.

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
    """Close the connections, so that ranks that wait for this one fail at once.

    Gloo closes a connection when nothing refers to it any more. The frames of an error's traceback
    do: unless they are cleared, the others notice only when this process ends.
    """
    import torch.distributed as dist

    if error:
        _forget(error)
    if dist.is_initialized():
        dist.destroy_process_group()


def _forget(error: BaseException | None) -> None:
    """Drop all that the frames of an error, and of its causes, refer to."""
    while error:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    gc.collect()


def _terminate(number: int, _: object) -> None:
    if sys.exc_info()[0] is None:  # otherwise an error is being handled
        raise Terminated(128 + number)


def _on_sigterm(handler: object) -> None:
    with suppress(ValueError):  # not the main thread, where signals do not arrive
        signal.signal(signal.SIGTERM, handler)  # type: ignore[arg-type]


def _end_first(notes: Notes, error: BaseException) -> None:
    """On rank 0: raise another rank's error instead of what it caused here."""
    _on_sigterm(signal.SIG_IGN)  # torchrun ends all ranks when one has ended, but this one must report
    notes.claim()
    disconnect(error)
    cause = None
    if isinstance(error, Terminated) and error.__context__:  # an error was being handled
        error = error.__context__
    if lost(error) or isinstance(error, Terminated):
        wait_until(lambda: notes.reported() or not notes.silent(), WORD_SECONDS if lost(error) else 0.0)
        cause = _cause(notes, error)
    if cause:
        raise TrainingError(cause) from error


def _end_other(notes: Notes, error: BaseException) -> None:
    """On another rank: write down its error, and end once rank 0 or another rank reports it."""
    if isinstance(error, Terminated):
        return
    own = not lost(error)
    if own:
        notes.report(str(error) if isinstance(error, AlexNetError) else f"{type(error).__name__}: {error}")
    else:
        notes.report_lost(str(error))
    disconnect(error)
    _on_sigterm(signal.SIG_DFL)
    if not wait_until(notes.claimed, REPORT_SECONDS if own else LOST_SECONDS) and _lowest(notes):
        _on_sigterm(signal.SIG_IGN)
        notes.claim()
        speak()
        if not own:
            raise TrainingError(_cause(notes, error)) from error
    wait_until(notes.claimed, REPORT_SECONDS)
    if not own:
        raise SystemExit(1) from None


def _lowest(notes: Notes) -> bool:
    """Whether all lower ranks are silent, not counting rank 0."""
    return not {*range(1, notes.rank)} - {*notes.silent()}


def _cause(notes: Notes, error: BaseException) -> str | None:
    """Why an exchange failed, from what the other ranks wrote; None if torchrun ended this rank and
    none wrote anything.
    """
    if found := notes.reported():
        return f"rank {found[0]} of {notes.count}: {found[1]}"
    if not lost(error):
        return None
    silent = notes.silent()
    then = "torchrun starts all ranks again." if notes.restarts else "Continue with --resume."
    if not silent:
        return f"the {notes.count} ranks lost their connection ({_line(error)}): check the network. {then}"
    if "imed out" in str(error):
        return (
            f"{named(silent, notes.count)} did not answer for {notes.timeout:g} seconds (--rank-timeout): it hangs, or it "
            f"was stopped. Look at that process and its machine. {then}"
        )
    return f"{named(silent, notes.count)} ended without an error: it was killed, or its machine ran out of memory. {then}"


def _line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def lost(error: BaseException) -> bool:
    """Whether an error is an exchange that failed because another rank ended or did not answer."""
    import torch.distributed as dist

    if isinstance(error, AlexNetError) or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, dist.DistError | Gone) or any(word in str(error) for word in ("gloo", "NCCL", "Connection closed"))
