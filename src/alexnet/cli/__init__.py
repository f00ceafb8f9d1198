"""The command line: `alexnet VERB`. Each function in these modules is a verb; its arguments and docstring are its `--help`.

PyTorch takes a second to import, so the verbs import what they need when they run, and `--help` and `summary` answer at once.
"""

import io
import os
import sys
from typing import Any

import tyro
from tyro.conf import OmitArgPrefixes, OmitSubcommandPrefixes

from alexnet.cli.evaluate import evaluate
from alexnet.cli.exchange import WEIGHTS, export, weights
from alexnet.cli.network import compare, summary
from alexnet.cli.predict import predict
from alexnet.cli.report import report
from alexnet.cli.speed import bench
from alexnet.cli.stores import prepare, verify
from alexnet.cli.training import ablate, demo, doctor, train
from alexnet.console import say
from alexnet.errors import AlexNetError, Interrupted, RecipeError, nearest
from alexnet.train import ablations, recipes
from alexnet.train.ablations import ABLATIONS
from alexnet.train.recipes import RECIPES

ABLATION_RECIPE = "small-photos"  # it has all that can be taken away: dropout, crops, mirrors, colour noise

VERBS: dict[str, Any] = {
    "summary": summary,
    "prepare": prepare,
    "verify": verify,
    "doctor": doctor,
    "train": train,
    "ablate": ablate,
    "evaluate": evaluate,
    "predict": predict,
    "weights": weights,
    "export": export,
    "compare": compare,
    "report": report,
    "bench": bench,
    "demo": demo,
}


def _check_words(arguments: list[str]) -> list[str]:
    """Refuse an unknown verb, recipe or ablation in one line; of options, tyro names the nearest.

    Returns:
        The arguments, with the default recipe of `ablate` where none was named.
    """
    verb, *rest = arguments or ["--help"]
    if not verb.startswith("-") and verb not in VERBS:
        raise RecipeError(f"there is no verb {verb!r}: {nearest(verb, VERBS)}")
    if verb in ("doctor", "train") and not {"-h", "--help"} & set(rest[:1]) and (not rest or rest[0] not in RECIPES):
        if not rest or rest[0].startswith("-"):
            raise RecipeError(f"{verb} needs a recipe first, as in `alexnet {verb} laptop ...`. Known: {', '.join(RECIPES)}.")
        recipes.get(rest[0])  # says what is known
    if verb == "weights" and rest and not rest[0].startswith("-") and rest[0] not in WEIGHTS:
        raise RecipeError(f"there is no action {rest[0]!r} of weights: {nearest(rest[0], WEIGHTS)}")
    if verb != "ablate" or {"-h", "--help"} & set(rest[:1]):
        return arguments
    if not rest or rest[0].startswith("-"):
        raise RecipeError(f"ablate needs a name first, as in `alexnet ablate no-lrn ...`. Known: {', '.join(ABLATIONS)}.")
    ablations.get(rest[0])
    if len(rest) > 1 and not rest[1].startswith("-"):
        recipes.get(rest[1])
        return arguments
    return [verb, rest[0], ABLATION_RECIPE, *rest[1:]]


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `alexnet`."""
    # PyTorch's CPU threads spin while they wait for each other. Where another program wants one of the two cores, that makes
    # training 30 times slower (26 against 794 images/s); sleeping costs 12 % where none does (docs/log.md).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # a file's name goes out with the bytes that it has
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        arguments = _check_words(arguments)
        tyro.extras.subcommand_cli_from_dict(
            VERBS,
            prog="alexnet",
            description="AlexNet: train it, test it, use it, look inside.",
            args=arguments,
            config=(OmitArgPrefixes, OmitSubcommandPrefixes),
        )
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
