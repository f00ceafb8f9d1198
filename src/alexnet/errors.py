"""Every error that a user can cause, in one tree.

AlexNetError
├── UsageError        a verb, an option or an argument that does not exist or does not fit
├── OutputError       an output file that is in the way, is named wrongly or cannot be written
├── VariantError      a network that cannot exist: widths, towers, an input too small
├── RecipeError       a training run with settings that cannot be used
├── SourceError       photos that cannot be found or understood
├── StoreError        a store that is missing, unfinished, damaged or in the way
├── CheckpointError   weights that are missing, damaged or of another network
├── DownloadError     a published file that cannot be obtained
├── TrainingError     a run that had to stop
└── Interrupted       a run that the user stopped; it was saved

Each message names the thing, its value, the rule it broke and the next step. The command line
prints it and exits with status 2 (130 for `Interrupted`). Any other exception is a bug of ours, and
its traceback is shown.
"""

import difflib
import errno
from collections.abc import Iterable

#: What the system says when nothing more can be written; an `OSError` with one of these
#: is the user's to mend.
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: HTTP codes of the 400s worth a retry: too slow, too many requests.
RETRIED_CODES = (408, 429)


class AlexNetError(Exception):
    """Base of all errors that a user can cause and mend."""


class UsageError(AlexNetError, ValueError):
    """A verb, an option or an argument that does not exist or does not fit."""


class OutputError(AlexNetError, ValueError):
    """An output file that is in the way, is named wrongly or cannot be written."""


class VariantError(AlexNetError, ValueError):
    """A network that cannot exist."""


class RecipeError(AlexNetError):
    """A training run with settings that cannot be used."""


class SourceError(AlexNetError, ValueError):
    """Photos that cannot be found or understood."""


class StoreError(AlexNetError, ValueError):
    """A store that is missing, unfinished, damaged or in the way."""


class CheckpointError(AlexNetError, ValueError):
    """Weights that are missing, damaged or of another network."""


class DownloadError(AlexNetError):
    """A published file that cannot be obtained."""


class TrainingError(AlexNetError, RuntimeError):
    """A run that had to stop."""


class Interrupted(AlexNetError):
    """A run that the user stopped and that was saved."""

    def __init__(self, message: str = "stopped and saved: run the same command to continue.") -> None:
        super().__init__(message)


def nearest(word: object, known: Iterable[str]) -> str:
    """The end of an error message about an unknown name: the closest known one, if any, then all of
    them.
    """
    known = sorted(known)
    close = difflib.get_close_matches(str(word), known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}? Known: {', '.join(known)}." if close else f"known are {', '.join(known)}."
