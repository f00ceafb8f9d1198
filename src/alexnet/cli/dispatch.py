"""From the words of a command line to the verb that they name.

Only the parser of the one verb, of the one recipe, is made: it starts at once, and its error
messages list no options of other verbs. The parser for all verbs is built only for shell
completion.
"""

import io
import textwrap
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import wraps
from inspect import getdoc
from typing import Any, NamedTuple

import tyro
from tyro.conf import OmitArgPrefixes, OmitSubcommandPrefixes

from alexnet import __version__
from alexnet.address import masked
from alexnet.cli import overview
from alexnet.cli.ablate import Ablating, ablate
from alexnet.cli.bench import bench
from alexnet.cli.compare import compare
from alexnet.cli.data import DATA, data
from alexnet.cli.demo import demo
from alexnet.cli.doctor import Examination, doctor
from alexnet.cli.draw import draw
from alexnet.cli.evaluate import evaluate
from alexnet.cli.explain import explain
from alexnet.cli.export import export
from alexnet.cli.filters import filters
from alexnet.cli.fit import fit
from alexnet.cli.help_text import registry, unwrap
from alexnet.cli.predict import predict
from alexnet.cli.prepare import prepare
from alexnet.cli.report import report
from alexnet.cli.serve import serve
from alexnet.cli.summary import summary
from alexnet.cli.train import Training, begun, joined, train
from alexnet.cli.verify import verify
from alexnet.cli.weights import WEIGHTS, weights
from alexnet.cli.words import HELP, check_options
from alexnet.console import silent
from alexnet.errors import UsageError, nearest
from alexnet.study import ablations
from alexnet.study.ablations import ABLATIONS
from alexnet.train import recipes
from alexnet.train.parallel.launch import several_by_torchrun
from alexnet.train.recipes import RECIPES

USUAL_RECIPE = "small-photos"  # for users' own photos; it also has everything that an ablation can remove
HELP_COLUMNS = 80
CONFIG = (OmitArgPrefixes, OmitSubcommandPrefixes)

VERBS: dict[str, Any] = {
    "summary": summary,
    "data": data,
    "fit": fit,
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
    "filters": filters,
    "draw": draw,
    "explain": explain,
    "serve": serve,
    "report": report,
    "bench": bench,
    "demo": demo,
}


class RecipeVerb(NamedTuple):
    """A verb that takes a recipe, whose fields become its options."""

    run: Callable[[Any], None]
    command: Any
    required: tuple[str, ...]
    example: str


RECIPE_VERBS = {
    "train": RecipeVerb(train, Training, ("data", "out"), "alexnet train small-photos --data store --out run"),
    "doctor": RecipeVerb(doctor, Examination, ("data",), "alexnet doctor small-photos --data store"),
}
#: Verbs of several actions.
ACTIONS = {"data": DATA, "weights": WEIGHTS}
ABLATE = RecipeVerb(lambda _: None, Ablating, ("data", "seeds"), "alexnet ablate no-lrn --data store --seeds 5")


def run(words: list[str]) -> None:
    """Run a command line.

    Args:
        words: what follows `alexnet`.

    Raises:
        UsageError: a verb, a recipe, an ablation or an option that does not exist, or a verb other
            than train under torchrun.
    """
    if any(word.startswith("--tyro-") for word in words):
        tyro.extras.subcommand_cli_from_dict(VERBS, prog="alexnet", args=words, config=CONFIG)
        return
    verb, *rest = words or ["help"]
    if verb != "train" and several_by_torchrun():
        raise UsageError(f"`alexnet {verb}` runs in one process, but torchrun starts several: run it without torchrun.")
    if verb == "help" and rest:
        verb, rest = rest[0], [*rest[1:], "--help"]
    if verb in ("help", *HELP):
        overview.show()
    elif verb == "--version":
        print(f"alexnet {__version__}")
    elif verb == "completion" and rest == ["--help"]:
        print(overview.COMPLETION)
    elif verb not in VERBS:
        raise UsageError(f"unknown verb {verb!r}: {nearest(verb, VERBS)} `alexnet help` shows an example of each.")
    elif verb in ACTIONS:
        _with_action(verb, rest)
    elif verb == "ablate":
        _ablate(rest)
    elif verb in RECIPE_VERBS:
        _with_recipe(verb, rest)
    else:
        _call(VERBS[verb], rest, f"alexnet {verb}")


def _call(target: Any, words: list[str], prog: str, description: str | None = None, **settings: Any) -> Any:
    check_options(target, words, prog)
    shown = [masked(word) for word in words]
    if shown != words and _refused(target, words, prog, settings):
        words = shown  # refused likewise, and tyro prints them
    if not silent():
        return _parsed(target, words, prog, description, **settings)
    unsaid = io.StringIO()  # tyro prints errors and help itself
    try:
        with redirect_stdout(unsaid), redirect_stderr(unsaid):
            return _parsed(target, words, prog, description, **settings)
    except SystemExit as error:
        if error.code:
            error.add_note(unsaid.getvalue())  # in case the first process does not have this error
        raise


def _refused(target: Any, words: list[str], prog: str, settings: dict[str, Any]) -> bool:
    """Whether tyro ends the program over these words; the verb is not run."""
    parsed = target if isinstance(target, type) else wraps(target)(lambda *_, **__: None)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            tyro.cli(parsed, prog=prog, args=words, config=CONFIG, registry=registry(), **settings)
    except SystemExit:
        return True
    return False


def _parsed(target: Any, words: list[str], prog: str, description: str | None, **settings: Any) -> Any:
    if not set(HELP).isdisjoint(words):
        print(description or _wrapped(getdoc(target)), end="\n\n")  # tyro would join its lines
        unwrap(target)
    return tyro.cli(target, prog=prog, description=" ", args=words, config=CONFIG, registry=registry(), **settings)


def _with_action(verb: str, words: list[str]) -> None:
    """`data` and `weights`: an action, then options."""
    actions = ACTIONS[verb]
    if not words or words[0] in HELP:
        about = _wrapped(getdoc(VERBS[verb]))
        print(f"usage: alexnet {verb} ACTION ...\n\n{about}\n\n{_listed(actions, 'actions')}")
        print(f"\n`alexnet help {verb} ACTION` shows the options of an action.")
        return
    action, *rest = words
    if action not in actions:
        raise UsageError(f"unknown action {action!r} of `alexnet {verb}`: {nearest(action, actions)}")
    _call(actions[action], rest, f"alexnet {verb} {action}")


def _with_recipe(verb: str, words: list[str]) -> None:
    """`train` and `doctor`: a recipe, then options."""
    called, words = RECIPE_VERBS[verb], joined(words)
    if words[:1] and words[0] in HELP:
        _recipe_help(called, f"alexnet {verb} RECIPE", getdoc(called.run), _listed(RECIPES, "recipes"), words)
    earlier = begun(words) if verb == "train" else None
    if earlier:
        called.run(_call(called.command, earlier.words, f"alexnet {verb}", default=earlier.default))
        return
    if not words or words[0].startswith("-"):
        raise UsageError(
            f"{verb} needs a recipe first, as in `{called.example}`. Known: {', '.join(RECIPES)}. "
            f"`alexnet {verb} --help` describes each one."
        )
    recipes.get_recipe(words[0])  # its error lists the known names
    called.run(_command(called, words[0], words[1:], f"alexnet {verb} {words[0]}"))


def _ablate(words: list[str]) -> None:
    """`ablate`: the change, optionally a recipe, then options."""
    if words[:1] and words[0] in HELP:
        claims = "\n".join(_item(name, one.claim) for name, one in ABLATIONS.items())
        names = f"names, and what the paper claims:\n{claims}\n\n{_listed(RECIPES, 'recipes')}"
        _recipe_help(ABLATE, "alexnet ablate NAME [RECIPE]", getdoc(ablate), names, words)
    if not words or words[0].startswith("-"):
        raise UsageError(
            f"ablate needs a name first, as in `{ABLATE.example}`. Known: {', '.join(ABLATIONS)}. "
            "`alexnet ablate --help` describes each one."
        )
    name, *rest = words
    ablations.get_ablation(name)
    recipe, rest = (rest[0], rest[1:]) if rest and not rest[0].startswith("-") else (USUAL_RECIPE, rest)
    recipes.get_recipe(recipe)
    ablate(name, _command(ABLATE, recipe, rest, f"alexnet ablate {name} {recipe}"))


def _recipe_help(called: RecipeVerb, prog: str, doc: str | None, names: str, words: list[str]) -> None:
    """What the verb does, the names that it takes, and its options; ends the
    program as tyro's help does.
    """
    note = f"The defaults below are for {USUAL_RECIPE}; other recipes have their own."
    parts = (_wrapped(doc), f"For example: {called.example}", names, note)
    _command(called, USUAL_RECIPE, words, prog, "\n\n".join(parts))


def _command(called: RecipeVerb, recipe: str, words: list[str], prog: str, description: str | None = None) -> Any:
    """Parse a verb's options."""
    default = called.command(recipe=RECIPES[recipe](), **dict.fromkeys(called.required, tyro.MISSING))
    description = description or _wrapped(getdoc(RECIPES[recipe]))
    return _call(called.command, words, prog, description, default=default)


def _listed(table: dict[str, Any], title: str) -> str:
    """Names with the first paragraph of their docstrings."""
    return "\n".join([f"{title}:", *(_item(name, (getdoc(one) or "").partition("\n\n")[0]) for name, one in table.items())])


def _item(name: str, text: str) -> str:
    return textwrap.fill(text, HELP_COLUMNS, initial_indent=f"  {name:15} ", subsequent_indent=" " * 18)


def _wrapped(doc: str | None) -> str:
    """The paragraphs of a docstring before its list of arguments, at the width of help."""
    paragraphs = (doc or "").partition("\n\nArgs:")[0].split("\n\n")
    return "\n\n".join(textwrap.fill(one, HELP_COLUMNS, break_on_hyphens=False) for one in paragraphs)
