"""The words of a command line: what is shown without any, what is said of
wrong ones, help, completion.
"""

import inspect
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import alexnet
from alexnet.cli import VERBS, main, overview
from alexnet.cli.dispatch import ABLATE, ACTIONS, RECIPE_VERBS
from alexnet.cli.help_text import unwrap
from alexnet.cli.words import check_options, options
from alexnet.study.ablations import ABLATIONS
from alexnet.train.recipes import RECIPES, Recipe

Said = Callable[..., tuple[int, str, str]]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """`said(*words)` runs the command line and gives its exit status, output and errors."""

    def run(*words: str) -> tuple[int, str, str]:
        try:
            main(list(words))
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        return status, *capsys.readouterr()

    return run


@pytest.mark.parametrize("words", [(), ("help",), ("--help",), ("-h",)])
def test_overview(said: Said, words: tuple[str, ...]) -> None:
    """It fits a terminal of 24 lines of 80, and every verb is on it once, as a
    command that can be typed; two may share a line.
    """
    status, out, _ = said(*words)
    lines = out.splitlines()
    assert status == 0 and len(lines) < 24 and max(map(len, lines)) <= 80
    assert [line for line in lines if not line.startswith(" ")][1:-1] == ["Begin with one of these", *overview.GROUPS]
    shown = [shlex.split(one)[1] for group in overview.GROUPS.values() for line in group for one in line.examples]
    assert sorted([*shown, "demo", "fit"]) == sorted(VERBS)
    for group in (overview.BEGIN, *overview.GROUPS.values()):
        assert all(line.example in out for line in group)


def test_version_and_module(said: Said) -> None:
    assert said("--version") == (0, f"alexnet {alexnet.__version__}\n", "")
    result = subprocess.run([sys.executable, "-m", "alexnet", "--version"], capture_output=True, text=True, timeout=60)
    assert result.stdout == f"alexnet {alexnet.__version__}\n", result.stderr


HELPED: dict[str, tuple[list[str], Any]] = {
    **{name: ([name], one) for name, one in VERBS.items() if name not in (*RECIPE_VERBS, *ACTIONS, "ablate")},
    **{name: ([name], one.command) for name, one in RECIPE_VERBS.items()},
    "train laptop": (["train", "laptop"], RECIPE_VERBS["train"].command),
    "ablate": (["ablate"], ABLATE.command),
    "ablate no-lrn": (["ablate", "no-lrn"], ABLATE.command),
    "ablate no-lrn laptop": (["ablate", "no-lrn", "laptop"], ABLATE.command),
    **{f"{verb} {name}": ([verb, name], one) for verb, actions in ACTIONS.items() for name, one in actions.items()},
}


@pytest.mark.parametrize("name", HELPED)
def test_help_lists_the_options(said: Said, name: str) -> None:
    """All that the check before tyro takes for known, and no other; `help VERB` says the same."""
    words, target = HELPED[name]
    status, out, _ = said(*words, "--help")
    listed = re.findall(r"^[│|]? +(?:-\w .*, )?(--[a-z][\w-]+)(?:.*, (--no-[\w-]+))?", out, re.MULTILINE)
    found = {option for pair in listed for option in pair if option} - {"--help"}
    assert status == 0 and found == set(options(target))
    assert f"usage: alexnet {name}" in out and max(map(len, out.splitlines())) <= 80
    assert said("help", *words)[1] == out


def test_help_names_what_can_be_chosen(said: Said) -> None:
    for verb in ("train", "doctor"):
        assert "small-photos    A few hundred" in said(verb, "--help")[1]
    assert "local response normalisation lowers the errors by 1.4" in said("ablate", "--help")[1]
    assert "pull            Download" in said("weights", "--help")[1] == said("weights")[1]


@pytest.mark.parametrize("words", [("train", "laptop"), ("doctor", "modern"), ("ablate", "no-lrn", "caffe"), ("summary",)])
def test_a_misspelled_option(said: Said, words: tuple[str, ...]) -> None:
    """One line with the option of the same verb, whatever else is missing."""
    prog = f"alexnet {' '.join(words)}"
    for word in ("--wdith", "--wdith=0.5"):
        error = f"alexnet: `{prog}` has no option --wdith. Did you mean --width? `{prog} --help` lists its options.\n"
        assert said(*words, word, "0.5") == (2, "", error)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--features pool9", "features (=pool9) must be one of pool5, fc6, fc7."),
        ("--parallel=foo", "parallel (=foo) must be one of auto, data, towers, hybrid."),
        ("--lr-factors 1,2", "lr_factors (=1,2) needs 8 values with spaces between them, as in --lr-factors 1 1 1 1 1 1 1 1."),
        ("--kernels 1 2 --lr 1", "kernels (=1 2) needs 5 values with spaces between them, as in --kernels 1 1 1 1 1."),
    ],
)
def test_a_value_that_cannot_be(said: Said, words: str, message: str) -> None:
    assert said("train", "laptop", "--data", "a", "--out", "b", *words.split()) == (2, "", f"alexnet: {message}\n")


def test_no_suggestion_where_nothing_is_near(said: Said) -> None:
    assert "has no option --overwrite. `alexnet fit --help`" in said("fit", "photos", "--overwrite")[2]


def test_unknown_words(said: Said) -> None:
    assert "unknown verb 'trian': did you mean 'train'?" in said("trian")[2]
    assert "unknown verb 'trian'" in said("help", "trian")[2]
    assert "has no option --qqqqqq. `alexnet predict --help` lists" in said("predict", "run", "--qqqqqq")[2]
    assert "needs a name first" in (error := said("ablate", "--wdith")[2]) and "`alexnet ablate --help` describes each" in error
    assert "`alexnet train --help` describes each" in said("train", "--data", "store")[2]
    assert said("train", "laptop", "--batch_size=x", "--data", "a", "--out", "b")[0] == 2  # tyro takes _ for -
    assert "has no option" not in said("predict", "run", "--", "--x")[2]


def target(words: list[str]) -> Any:
    """What the words' options belong to."""
    if words[0] in ACTIONS:
        return ACTIONS[words[0]][words[1]]
    return (
        ABLATE.command
        if words[0] == "ablate"
        else RECIPE_VERBS[words[0]].command
        if words[0] in RECIPE_VERBS
        else VERBS[words[0]]
    )


def test_commands_of_the_docs_and_the_overview() -> None:
    """Their verbs, options, recipes and ablations exist."""
    root = Path(__file__).parents[1]
    pages = [root / "README.md", root / "records/README.md", *(root / "docs").glob("*.md")]
    blocks = [block for page in pages for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)]
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("alexnet ")]
    assert len(lines) > 50
    shown = [one for group in (overview.BEGIN, *overview.GROUPS.values()) for line in group for one in line.examples]
    for line in (*lines, *shown):
        words = shlex.split(line, comments=True)[1:]
        if not words:
            continue  # `alexnet` alone
        check_options(target(words), words, line)
        if words[0] in RECIPE_VERBS and "--config" not in words:
            assert words[1] in RECIPES, line
        assert words[0] != "ablate" or words[1] in ABLATIONS, line


def test_completion(said: Said, tmp_path: Any) -> None:
    """The script that `alexnet help completion` names completes verbs, recipes and options in
    bash.
    """
    text = said("help", "completion")[1]
    assert "alexnet --tyro-print-completion bash > alexnet" in text and "--tyro-print-completion zsh" in text
    bash = shutil.which("bash")
    if not bash:
        pytest.skip("bash is not here")
    script = tmp_path / "alexnet"
    script.write_text(said("--tyro-print-completion", "bash")[1] + "complete -o default -F _tyro_alexnet alexnet\n")
    ask = """source "$1"; complete -p alexnet
    ask() { COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); COMPREPLY=(); _tyro_alexnet; echo "${COMPREPLY[@]}"; }
    ask alexnet tr; ask alexnet train sm; ask alexnet train small-photos --wid; ask alexnet weights pu"""
    result = subprocess.run([bash, "-c", ask, "bash", str(script)], capture_output=True, text=True, timeout=60)
    assert result.stdout.splitlines() == [
        "complete -o default -F _tyro_alexnet alexnet",
        "train",
        "small-photos",
        "--width",
        "pull",
    ], result.stderr


@pytest.mark.parametrize("kind", [VERBS["predict"], RECIPE_VERBS["train"].command, Recipe])
def test_help_has_no_line_breaks_of_the_source(kind: Any) -> None:
    """The help of a function's options, of a dataclass's, and of those of a dataclass in it: the
    same words in one line.
    """
    source = inspect.getsource(kind)
    unwrap(VERBS["predict"])
    unwrap(RECIPE_VERBS["train"].command)
    unwrap(RECIPE_VERBS["train"].command)  # a second time nothing changes
    lines = [line.strip().partition(": ") for line in (kind.__doc__ or "").partition("Args:")[2].splitlines() if line]
    assert len(lines) > 5 and max(len(text) for _, _, text in lines) > 100
    for _, _, text in lines:
        assert text.removesuffix(".") in " ".join(source.split())


@pytest.mark.parametrize(
    "words",
    [["predict"], ["prepare"], ["evaluate"], ["train"], ["doctor"], ["ablate"], ["weights", "import"], ["summary"], ["demo"]],
    ids=" ".join,
)
def test_help_says_what_an_option_takes(said: Said, words: list[str]) -> None:
    """An option that may be left out does not ask for None, and what must be
    given has no empty default.
    """
    status, out, _ = said("help", *words)
    shown = [line for line in out.splitlines() if re.match(r"\W*--\w", line)]
    assert status == 0 and shown
    assert not [line for line in shown if "{None" in line or "None}" in line]
    assert "default: None" not in re.sub(r"[\s│]+", " ", out) and "(default: )" not in out
    positional = re.split(r"options [^o\w]*\n", out)[0]
    assert "(default: )" not in positional and "STR" not in positional


def test_an_option_of_several_values(said: Said) -> None:
    _, out, _ = said("help", "train")
    assert "--kernels INT INT INT INT INT" in out and "--init {gaussian,he,torch}" in out
    _, out, _ = said("help", "predict")
    assert "PICTURE [PICTURE ...]" in out and "--sheet PATH" in out
