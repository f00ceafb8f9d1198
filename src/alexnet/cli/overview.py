"""What `alexnet` alone prints: the two commands to begin with, and one line for each verb, grouped
by purpose.
"""

from typing import NamedTuple

from alexnet import __version__


class VerbLine(NamedTuple):
    """What one verb is for, or two that belong together, and a command line that does it."""

    purpose: str
    example: str
    other: str = ""

    @property
    def examples(self) -> tuple[str, ...]:
        """Its command lines."""
        return (self.example, self.other) if self.other else (self.example,)


BEGIN = (
    VerbLine("no photos at hand?", "alexnet demo"),
    VerbLine("your own photos", "alexnet fit photos --out run"),
)
GROUPS = {
    "Your photos": (
        VerbLine("make a store, once", "alexnet prepare photos store"),
        VerbLine("train on them", "alexnet train small-photos --data store --out run"),
        VerbLine("test on held-out ones", "alexnet evaluate run --data store"),
        VerbLine("classify pictures", "alexnet predict run cat.jpg"),
        VerbLine("write a page about it", "alexnet report run --data store"),
        VerbLine("find damage", "alexnet verify store"),
    ),
    "Look inside": (
        VerbLine("at work on a picture", "alexnet explain cat.jpg", "alexnet serve"),
        VerbLine("all layers, a drawing", "alexnet summary caffe", "alexnet draw paper"),
        VerbLine("will it train?", "alexnet doctor small-photos --data store"),
        VerbLine("conv1's kernels", "alexnet filters run -o filters.png"),
        VerbLine("how variants differ", "alexnet compare caffe paper --weights run --image a.jpg"),
    ),
    "Weights, research and speed": (
        VerbLine("published by others", "alexnet weights list", "alexnet data list"),
        VerbLine("for other programs", "alexnet export run --to onnx"),
        VerbLine("what does LRN gain?", "alexnet ablate no-lrn --data store --seeds 5"),
        VerbLine("how fast is it here?", "alexnet bench"),
    ),
}
END = "`alexnet help VERB` explains a verb; `alexnet help completion`: set up Tab."
COMPLETION = """\
Tab completes verbs, recipes, options and files in new shells after these commands.

bash:
  mkdir -p ~/.local/share/bash-completion/completions
  cd ~/.local/share/bash-completion/completions
  alexnet --tyro-print-completion bash > alexnet
  echo 'complete -o default -F _tyro_alexnet alexnet' >> alexnet

zsh, where ~/.zshrc has `fpath=(~/.zfunc $fpath); autoload -Uz compinit; compinit`:
  mkdir -p ~/.zfunc
  alexnet --tyro-print-completion zsh > ~/.zfunc/_alexnet\
"""


def show() -> None:
    """Print the overview; at most 80 columns."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    console.print(f"AlexNet {__version__}: train it, test it, use it, look inside.   usage: alexnet VERB ...", markup=False)
    for title, lines in {"Begin with one of these": BEGIN, **GROUPS}.items():
        console.print(title, style="bold")
        for line in lines:
            console.print(f"  {line.purpose:21}  {'; '.join(line.examples)}", markup=False)
    console.print(END, markup=False)
