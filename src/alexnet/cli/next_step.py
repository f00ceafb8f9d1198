"""The last line of a verb: the next step, as a command to copy.

It goes to standard error, so that standard output stays what a program reads.
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet.address import left_out, shown
from alexnet.console import say

if TYPE_CHECKING:
    from alexnet.data.store import Store

PHOTO = "photo.jpg"  # in place of a picture of the user's


def next_step(*words: object) -> None:
    """Print the next command; before it, what an address in it lacks, such as a password.

    Args:
        words: what follows `alexnet`; each is quoted for the shell.
    """
    sys.stdout.flush()  # what was printed comes first, also where both go to one file
    for lacking in filter(None, (left_out(str(word)) for word in words)):
        say(f"The address in the next command lacks {lacking}.")
    say(f"Next: {command_line(words)}", whole=True)


def command_line(words: Iterable[object]) -> str:
    """`alexnet` and these words, quoted for the shell; addresses without passwords."""
    texts = ["alexnet", *(shown(str(word)) for word in words)]
    return subprocess.list2cmdline(texts) if os.name == "nt" else shlex.join(texts)


def train_on(store: "Store") -> None:
    """Suggest the recipe whose crops fit a store's pictures."""
    from alexnet.train.recipes import RECIPES

    fitting = (name for name in ("small-photos", "laptop") if (RECIPES[name]().input_size or 0) <= store.size)
    next_step("train", next(fitting, "laptop"), "--data", store.given, "--out", free_folder("run"))


def free_folder(name: str) -> str:
    """`name`, or `name`2, `name`3 ... if there is one already."""
    return next(one for one in (f"{name}{number if number > 1 else ''}" for number in count(1)) if not Path(one).exists())
