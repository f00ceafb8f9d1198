"""`alexnet summary`: a network as numbers."""

from typing import Annotated, Literal

from tyro.conf import Positional, arg

from alexnet.cli.next_step import next_step
from alexnet.errors import UsageError
from alexnet.words import Language


def summary(
    variant: Positional[Annotated[str, arg(metavar="VARIANT")]] = "paper",
    format: Literal["table", "markdown", "json"] = "table",
    input_size: int | None = None,
    width: float = 1.0,
    num_classes: int | None = None,
    explain: bool = False,
    lang: Language = "en",
) -> None:
    """Show a network layer by layer: shapes, parameters, multiply-adds, memory and receptive
    fields.

    Args:
        variant: paper, code-2012, caffe, caffenet, owt or torchvision.
        format: a table for people, Markdown, or JSON for programs.
        input_size: side of the input in pixels; the variant's own by default.
        width: factor for the number of kernels and units in every layer but the last.
        num_classes: outputs of the last layer; the variant's own by default.
        explain: write out each layer with its numbers, as text or Markdown.
        lang: the language of --explain: English or Chinese.
    """
    from alexnet import summary as view
    from alexnet.variants import get_variant

    changes = {"input_size": input_size, "num_classes": num_classes}
    chosen = get_variant(variant, width=width, **{name: value for name, value in changes.items() if value is not None})
    if explain:
        if format == "json":
            raise UsageError("--explain prints text or Markdown: drop it or drop --format json.")
        print(view.explain(chosen, lang, format))
    elif lang != "en":
        raise UsageError("--lang is the language of --explain: add --explain, or drop --lang.")
    elif format == "table":
        view.table(chosen)
    else:
        print({"markdown": view.markdown, "json": view.as_json}[format](chosen))
    given = {"--input-size": input_size, "--width": None if width == 1 else width, "--num-classes": num_classes}
    options = [word for name, value in given.items() if value is not None for word in (name, value)]
    if explain:
        languages = [] if lang == "en" else ["--lang", lang]
        next_step("draw", variant, *options, *languages, "-o", "alexnet.svg")
    else:
        next_step("summary", variant, *options, "--explain")
