"""The command line: `alexnet VERB`. Each function in these modules is a verb; its arguments and
docstring are its `--help`.

PyTorch takes a second to import, so the verbs import what they need when they run, and `--help` and
`summary` answer at once.
"""

import os
import sys
import time
from contextlib import suppress

from alexnet.cli import dispatch, failures, streams
from alexnet.cli.dispatch import VERBS
from alexnet.console import say, silence, silent, speak
from alexnet.errors import Interrupted
from alexnet.train.parallel import launch

__all__ = ["VERBS", "main"]


#: Seconds that a silent process leaves for another one to report the error, as torchrun ends all
#: processes when one has ended.
SPEAK_SECONDS = 10.0


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `alexnet`."""
    # PyTorch's CPU threads spin while they wait for each other. Where another program needs one of
    # the two cores, that makes training 30 times slower (26 against 794 images/s); sleeping costs
    # 12 % where none does (docs/log.md).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    words = sys.argv[1:] if arguments is None else arguments
    if launch.another_speaks() and (words[:1] == ["train"] or launch.several_by_torchrun()):
        silence()  # other verbs are one process, whatever the environment is left over from
    with streams.guarded():
        try:
            _run(words)
        except BaseException as error:
            ending = failures.explain(error)
            if silent() and launch.another_speaks():
                _let_the_other_speak(error, ending)
            if ending is None:
                raise
            status, line = ending
            if line:
                with suppress(OSError):  # where standard error is what cannot be written
                    say(f"alexnet: {line}")
            raise SystemExit(status) from None


def _let_the_other_speak(error: BaseException, ending: tuple[int, str] | None) -> None:
    """Wait until torchrun ends this process. If it does not, only this process has the error: then
    it reports it itself.
    """
    unsaid = getattr(error, "__notes__", [])
    if isinstance(error, KeyboardInterrupt | Interrupted) or not (ending or unsaid):
        return
    time.sleep(SPEAK_SECONDS)
    speak()
    with suppress(OSError):
        sys.stderr.writelines(unsaid)


def _run(words: list[str]) -> None:
    """Run a verb, and write what it has printed: after this, a failure could not be reported."""
    try:
        dispatch.run(words)
    except SystemExit:  # after --help, or where a verb found something
        sys.stdout.flush()
        raise
    sys.stdout.flush()
