"""`alexnet draw`: a network, or one of its layers, as a figure for notes, slides and papers."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from alexnet.cli.next_step import next_step
from alexnet.words import Language


def draw(
    variant: Positional[Annotated[str, arg(metavar="VARIANT")]] = "paper",
    out: Annotated[Path, arg(aliases=["-o"])] = Path("alexnet.svg"),
    layer: Annotated[str | None, arg(metavar="NAME")] = None,
    lang: Language = "en",
    input_size: int | None = None,
    width: float = 1.0,
    num_classes: int | None = None,
) -> None:
    """Draw a network from its own numbers, with its towers as in figure 2 of the paper; with
    --layer, one layer: the window, the padding, and each size worked out.

    Args:
        variant: paper, code-2012, caffe, caffenet, owt or torchvision.
        out: the picture to write: .svg, .png or .pdf.
        layer: a layer such as conv1, relu1, norm1, pool5, fc6 or drop6, or softmax; the whole
            network by default.
        lang: the language of the words: English or Chinese.
        input_size: side of the input in pixels; the variant's own by default.
        width: factor for the number of kernels and units in every layer but the last.
        num_classes: outputs of the last layer; the variant's own by default.
    """
    from alexnet.figure_file import check_ending
    from alexnet.files import make_ready
    from alexnet.inspect import drawing
    from alexnet.variants import get_variant

    changes = {"input_size": input_size, "num_classes": num_classes}
    chosen = get_variant(variant, width=width, **{name: value for name, value in changes.items() if value is not None})
    names = drawing.layer_names(chosen)
    drawing.check_layer(chosen, layer)
    check_ending("out", out)
    make_ready(out)
    drawing.save(out, chosen, layer, lang)
    print(f"{out}: {layer + ' of ' if layer else ''}{chosen.name}")
    given = {"--input-size": input_size, "--width": None if width == 1 else width, "--num-classes": num_classes}
    options = [word for name, value in given.items() if value is not None for word in (name, value)]
    options += [] if lang == "en" else ["--lang", lang]
    following = names[0] if layer is None else next(iter(names[names.index(layer) + 1 :]), None)
    if following is None:
        next_step("summary", variant, *options, "--explain")
    else:
        next_step("draw", variant, *options, "--layer", following, "-o", out.with_name(f"{following}{out.suffix}"))
