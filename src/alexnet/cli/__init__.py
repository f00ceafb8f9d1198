"""The command line: `alexnet VERB`. Each function in these modules is a verb; its arguments and docstring are its `--help`.

PyTorch takes a second to import, so the verbs import what they need when they run, and `--help` and `summary` answer at once.
"""

import io
import os
import sys

from alexnet.cli.dispatch import VERBS, run
from alexnet.console import say
from alexnet.errors import AlexNetError, Interrupted

__all__ = ["VERBS", "main"]


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `alexnet`."""
    # PyTorch's CPU threads spin while they wait for each other. Where another program wants one of the two cores, that makes
    # training 30 times slower (26 against 794 images/s); sleeping costs 12 % where none does (docs/log.md).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # a file's name goes out with the bytes that it has
    try:
        run(sys.argv[1:] if arguments is None else arguments)
    except AlexNetError as error:
        say(f"alexnet: {error}")
        raise SystemExit(130 if isinstance(error, Interrupted) else 2) from None
    except KeyboardInterrupt:
        say("alexnet: interrupted")
        raise SystemExit(130) from None
    except BrokenPipeError:  # `alexnet predict ... | head`
        sys.stderr.close()
        raise SystemExit(141) from None
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch.cuda's, without importing it for each command
            raise
        remedy = "end other programs that use it, or set CUDA_VISIBLE_DEVICES= to compute on the CPU"
        say(f"alexnet: the GPU's memory is full: {remedy}.")
        raise SystemExit(2) from None
    except OSError as error:  # a folder that may not be written, a file in the place of a folder
        if error.filename is None:
            raise
        say(f"alexnet: {error.filename}: {error.strerror}")
        raise SystemExit(2) from None
