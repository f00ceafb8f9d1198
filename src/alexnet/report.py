"""A run on one page: one HTML file that holds its pictures, asks no server for
anything, and fits a phone.

What was measured comes first, with how far it can be trusted. Names are text and not drawn, so that
the reader's browser finds the letters of any language. Whatever is long is folded away.
"""

import html
import io
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from alexnet import engines, examples, figure_file, figures, intervals
from alexnet.address import is_address
from alexnet.console import clean, duration
from alexnet.data.store import Store
from alexnet.evaluate import Evaluation
from alexnet.examples import CERTAIN, Example, Mistakes
from alexnet.files import writing
from alexnet.inspect.filters import first_layer
from alexnet.intervals import percent
from alexnet.phrases import counted
from alexnet.run_folder import ALONE, Environment
from alexnet.train import history, recipes
from alexnet.train.history import History
from alexnet.train.recipes import RECIPES, Recipe
from alexnet.trained import Trained

SHOWN = 12  # pictures of each kind
CARD_LETTERS = 20  # of a file's name, on the narrowest card
PAIRS = 15  # classes that are taken for each other
OPEN_ROWS = 20  # longer tables are folded
MOST_CSV = 300_000  # bytes of a confusion matrix that the page holds

STYLE = """
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, "Noto Sans", "Noto Sans CJK SC", sans-serif; max-width: 70rem; margin: 0 auto;
  padding: 1rem; color: #222; overflow-wrap: anywhere }
h1 { font-size: 1.5rem; margin: .5rem 0 } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem }
img { max-width: 100%; height: auto } p.note { color: #555; max-width: 48rem }
p.error { font-size: 1.4rem; margin: .5rem 0 } p.warning { background: #fff4d6; padding: .5rem .8rem; border-radius: .4rem }
table { border-collapse: collapse } td, th { padding: .15rem .8rem .15rem 0; text-align: start; vertical-align: top }
td:not([class]) { min-width: 5.5rem }
td.n, th.n { text-align: end; white-space: nowrap; font-variant-numeric: tabular-nums; overflow-wrap: normal }
.wide { overflow-x: auto } summary { cursor: pointer; padding: .3rem 0 }
.scale { position: relative; height: 2.2rem; max-width: 34rem; margin: 1rem 0 .5rem; border-bottom: 1px solid #999;
  font-size: .75rem; color: #555 }
.scale i { position: absolute; bottom: 0 } .scale .range { background: #9db7d8; height: .8rem; min-width: 2px }
.scale .error { background: #1f5fa8; width: 3px; height: 1.1rem; margin-left: -1px }
.scale .chance { background: #888; width: 1px; height: 1.1rem }
.ends { display: flex; justify-content: space-between; max-width: 34rem; font-size: .75rem; color: #555 }
.key i { display: inline-block; width: 1rem; height: .7rem; margin-right: .3rem } .key span { margin-right: 1rem }
.key { font-size: .85rem; color: #555; margin: .3rem 0 }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(19rem, 100%), 1fr)); gap: .5rem }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: 1rem .8rem }
figure.card { margin: 0; font-size: .8rem; line-height: 1.35; min-width: 0 } .card img { width: 100%; border-radius: .3rem }
.card .file { display: block; color: #555; overflow: hidden; white-space: nowrap;
  text-overflow: ellipsis }
.card .line { display: block; position: relative; margin-top: 2px; padding: 0 .3rem;
  background: #f3f5f8; overflow: hidden; white-space: nowrap; text-overflow: ellipsis }
.card .line b { position: absolute; inset: 0 auto 0 0; background: #c9d7ea } .card .line.true b { background: #f0bcc6 }
.card .line span { position: relative; display: flex; gap: .3rem }
.card .line bdi { flex: 1; overflow: hidden; text-overflow: ellipsis }
.matrix td:not([class]) { min-width: 2rem; height: 2rem; padding: 0; text-align: center; vertical-align: middle;
  font-size: .8rem; border: 1px solid #eee; font-variant-numeric: tabular-nums; overflow-wrap: normal }
.matrix th { font-weight: normal; font-size: .8rem; overflow: hidden; text-overflow: ellipsis; white-space: nowrap }
.matrix th[scope=row] { position: sticky; left: 0; background: #fff; max-width: 9rem; vertical-align: middle;
  padding-right: .4rem }
.matrix th[scope=col] div { writing-mode: vertical-rl; text-orientation: sideways; transform: rotate(180deg); max-height: 9rem;
  overflow: hidden; text-overflow: ellipsis; margin: 0 auto }
.beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); gap: 1.5rem }
@media (max-width: 30rem) { td, th { padding-right: .5rem; font-size: .85rem } .matrix th[scope=row] { max-width: 6rem }
  .matrix td:not([class]) { min-width: 1.5rem; height: 1.6rem; font-size: .7rem } }
"""

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title><style>{style}</style></head><body>
{body}
</body></html>
"""

EXPLAINED = '<p><a href="{page}">See this network work on one of the test pictures</a>, down to each number.</p>'


def write(
    path: Path, title: str, trained: Trained, store: Store, result: Evaluation, run: Path, explained: str | None = None
) -> Path:
    """Write everything about a run into one HTML file, which is whole or not there.

    Args:
        path: the file.
        title: the page's heading.
        result: of the network on the store's held-out pictures.
        run: the run's folder, for its log and configuration.
        explained: the name of a page beside it that shows the network at work on a picture.

    Returns:
        `path`.

    Raises:
        CheckpointError: the run's log or configuration is damaged.
        OutputError: the page cannot be written.
    """
    record = history.read(run)
    classifier = engines.of(trained)
    tested = examples.draw(classifier, store)
    sections = (
        f"<h1>{_text(title)}</h1>",
        *_result(result, trained, record.recipe),
        *([EXPLAINED.format(page=_text(explained))] if explained else []),
        *_settings(record, store, trained.state.get("environments") or [record.environment]),
        *_training(record, trained.model.variant.dropout > 0),
        *_first_layer(trained, store, record.recipe),
        *_pictures(tested, classifier.classes, len(store.held_out), result.views),
        *_confusion(result),
        *_classes(result),
    )
    page = PAGE.format(title=_text(title), style=STYLE, body="\n".join(sections))
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


# --- pieces of HTML -------------------------------------------------------------------------------


def _text(value: Any) -> str:
    """Anything as text that is safe between tags and in quoted attributes."""
    return html.escape(clean(str(value)))


def _name(value: str) -> str:
    """A foreign name, whose direction of writing does not spread to what follows."""
    return f"<bdi>{_text(value)}</bdi>"


def _shortened(file: str) -> str:
    """A file's name without its middle if a card has no room for it: what tells
    files apart is at the end.
    """
    return file if len(file) <= CARD_LETTERS else f"{file[: CARD_LETTERS // 2]}…{file[-(CARD_LETTERS // 2) :]}"


def _data(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"


def _drawn(figure: Figure, alt: str) -> str:
    return f'<img src="{_data(figure_file.png(figure), "image/png")}" alt="{_text(alt)}">'


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], numbers: int) -> str:
    """A table whose last `numbers` columns are numbers; cells are HTML."""
    kinds = [""] * (len(headings) - numbers) + [" class=n"] * numbers
    head = "".join(f"<th{kind}>{_text(one)}</th>" for kind, one in zip(kinds, headings, strict=True))
    body = "".join(
        f"<tr>{''.join(f'<td{kind}>{cell}</td>' for kind, cell in zip(kinds, row, strict=True))}</tr>\n" for row in rows
    )
    return f"<div class=wide><table><tr>{head}</tr>\n{body}</table></div>"


def _folded(summary: str, content: str, opened: bool = False) -> str:
    return f"<details{' open' * opened}><summary>{_text(summary)}</summary>{content}</details>"


# --- sections -------------------------------------------------------------------------------------


def _result(result: Evaluation, trained: Trained, recipe: Recipe) -> Iterator[str]:
    low, high = result.interval
    done = trained.state["epoch"]
    yield f"<p class=error><b>Top-1 error {percent(result.top1_error)}</b></p>"
    yield (
        f'<div class=scale><i class=range style="left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%"></i>'
        f'<i class=error style="left:{100 * result.top1_error:.2f}%"></i>'
        f'<i class=chance style="left:{100 * result.chance:.2f}%"></i></div>'
        "<div class=ends><span>0%</span><span>100%</span></div>"
        '<p class=key><span><i style="background:#9db7d8"></i>95% interval '
        f'{intervals.interval(result.wrong, result.images)}</span><span><i style="background:#888;width:2px"></i>'
        f"chance {percent(result.chance)}</span></p>"
    )
    top5 = f" Top-5 error: {percent(result.top5_error)}." if result.has_top5 else ""
    stopped = f", stopped in epoch {done + 1} of {recipe.epochs}" if done < recipe.epochs else f", {counted(done, 'epoch')}"
    yield (
        f"<p>{result.wrong:,} of {counted(result.images, 'test picture')} {'was' if result.wrong == 1 else 'were'} "
        f"classified wrongly{f', each seen in {result.views} views' * (result.views > 1)}.{top5} "
        f"Trained for {duration(trained.state['seconds'])}{stopped}.</p>"
        "<p class=note>Other test pictures of the same kind would give a somewhat different error. An interval like this one "
        "contains the error on all such pictures 19 times in 20. Chance is the error of always naming the most frequent "
        "class.</p>"
    )
    few = intervals.warning(result.images)
    if few:
        yield f"<p class=warning>{_text(few[0].upper() + few[1:])}</p>"


def _settings(record: History, store: Store, environments: Sequence[Environment]) -> Iterator[str]:
    name = recipes.closest(record.recipe)
    changed = recipes.differences(RECIPES[name](), record.recipe)
    yield "<h2>Settings</h2>"
    if changed:
        rows = [[_text(field), _text(usual), f"<b>{_text(own)}</b>"] for field, (usual, own) in changed.items()]
        yield f"<p>Closest recipe: <code>{name}</code>. This run differs in:</p>"
        yield _table(["setting", name, "this run"], rows, 0)
    else:
        yield f"<p>Recipe: <code>{name}</code>, unchanged.</p>"
    if processes := _processes(environments):
        yield f"<p>Trained by {_text(processes)}.</p>"
    data = store.address if is_address(store.address) else store.folder.name
    command = f"alexnet train {recipes.words(record.recipe)} --data {data} --out run"
    everything = [[_text(field), _text(value)] for field, value in asdict(record.recipe).items()]
    yield _folded("All settings", f"<p><code>{_text(command)}</code></p>" + _table(["setting", "value"], everything, 0))
    yield _folded("Where it was trained", _places(environments))


def _processes(environments: Sequence[Environment]) -> str:
    """How many processes trained a run, and in which scheme, in order; empty if always one."""
    pairs = ((one["ranks"], one["parallel"]) for one in (ALONE | each for each in environments))
    said = ["1 process" if count == 1 else f"{count} processes (--parallel {scheme})" for (count, scheme), _ in groupby(pairs)]
    return "" if said == ["1 process"] else ", then by ".join(said)


def _places(environments: Sequence[Environment]) -> str:
    """Where a run was trained, with a column for each time that it went on elsewhere."""
    names = dict.fromkeys(name for one in environments for name, value in one.items() if value is not None)
    complete = [ALONE | one for one in environments]
    rows = [[_text(name), *(_text(one.get(name) or "none") for one in complete)] for name in names]
    headings = ["value"] if len(complete) == 1 else ["first", *["then"] * (len(complete) - 1)]
    return _table(["what", *headings], rows, 0)


def _training(record: History, dropout: bool) -> Iterator[str]:
    yield "<h2>Training</h2>"
    lines = [line for line in record.log if line["kind"] == "train"]
    if not lines:
        yield "<p>The run's log has no training lines yet.</p>"
        return
    if not lines[-1]["step"]:  # as of `train finetune --tune head`
        yield (
            "<p>A new last layer was fitted at once to what trained weights make of the training pictures, so there are no "
            f"curves. On these pictures its loss is {lines[-1]['loss']:.3f} and its top-1 error "
            f"{percent(lines[-1]['top1_error'])}.</p>"
        )
        return
    names = ("loss over training", "top-1 error over training", "learning rate over training")
    drawn = "".join(_drawn(figure, name) for figure, name in zip(figures.curves(record.log), names, strict=True))
    yield f"<div class=curves>{drawn}</div>"
    if record.extended:
        planned = ", ".join(f"for {counted(one.epochs, 'epoch')} until epoch {one.at:g}" for one in record.extended)
        yield (
            f"<p>This run was given more epochs later: it was planned {planned}, and for {record.recipe.epochs} from there on. "
            "Its learning rate followed the plan of the moment, so the result differs from that of a run started with "
            f"{record.recipe.epochs}.</p>"
        )
    if harder := _harder(record.recipe, dropout):
        yield (
            f"<p class=note>The error in training is measured {harder}: it may well be higher than the error on held-out "
            "pictures.</p>"
        )


def _harder(recipe: Recipe, dropout: bool) -> str:
    """What makes training pictures harder than held-out ones, in words; empty if nothing does."""
    changes = {"cropped": recipe.crop, "mirrored": recipe.mirror, "recoloured": recipe.colour_noise > 0}
    *others, last = [name for name, made in changes.items() if made] or [""]
    pictures = f"on {', '.join(others)}{' and ' if others else ''}{last} pictures" if last else ""
    return ", ".join(filter(None, (pictures, "with dropout" if dropout else "")))


def _first_layer(trained: Trained, store: Store, recipe: Recipe) -> Iterator[str]:
    grey = store.statistics.axis_deviations[1] < 1  # colours vary by less than one level
    summed = " and summed over its channels, since the pictures are grey" if grey else ""
    towers = trained.model.variant.towers > 1
    origin = "After a short training on few pictures much of the random start still shows."
    if recipe.weights:
        frozen = recipe.lr_factors is not None and not recipe.lr_factors[0]
        origin = f"They are from the weights that the run began with{', and were not trained here' * frozen}."
    yield "<h2>The first layer</h2>"
    yield _drawn(figures.filters(first_layer(trained.model, grey)), "kernels of conv1")
    yield (
        f"<p class=note>Each square is one kernel of conv1, stretched to its full range{summed}. "
        f"{'The towers see the same picture and share nothing until conv3. ' * towers}"
        f"{origin}</p>"
    )


def _pictures(tested: Sequence[Example], classes: Sequence[str], total: int, views: int) -> Iterator[str]:
    seen = " Here each is seen in one view only, its centre." if views > 1 else ""
    legend = f"Below each picture: the five most likely classes, the true one in pink.{seen}"
    among = f"all {total:,}" if len(tested) == total else f"{len(tested):,} randomly drawn"
    mistakes = Mistakes.of(tested)
    certain = f"The network is at least {CERTAIN:.0%} certain of another class: look whether the photo is in the right folder."
    kinds = (
        ("Labelled wrongly?", mistakes.mislabelled, certain),
        (
            "Nearly right",
            mistakes.nearly,
            "The true class is nearly as likely as the one named: more photos like these may help.",
        ),
        ("Mistakes", mistakes.others, "The other mistakes, those that the network is most certain of first."),
    )
    for heading, chosen, note in kinds:
        if chosen:
            shown = f"{len(chosen):,} of {among} test pictures{f', {SHOWN} of them here' * (len(chosen) > SHOWN)}"
            yield f"<h2>{heading}</h2><p class=note>{note} {shown}. {legend}</p>{_cards(chosen[:SHOWN], classes)}"
    drawn = sorted(tested[:SHOWN], key=lambda one: not one.wrong)
    yield "<h2>Drawn at random</h2>"
    yield f"<p class=note>Test pictures as they come; mistakes first. {legend}</p>"
    yield _cards(drawn, classes)


def _cards(examples: Sequence[Example], classes: Sequence[str]) -> str:
    return f"<div class=cards>{''.join(_card(one, classes) for one in examples)}</div>"


def _card(example: Example, classes: Sequence[str]) -> str:
    with io.BytesIO() as file:
        Image.fromarray(example.picture).save(file, "JPEG", quality=85)
        picture = _data(file.getvalue(), "image/jpeg")
    true = classes[example.true]
    lines = "".join(_line(classes[label], share, label == example.true) for label, share in example.top)
    verdict = f", taken for {_name(classes[example.top[0][0]])}" if example.wrong else ", right"
    return (
        f'<figure class=card><img src="{picture}" alt="{_text(true)}"><figcaption>'
        f'<span class=file title="{_text(example.file)}">{_name(_shortened(Path(example.file).name))}</span>'
        f"<b>{_name(true)}</b>{verdict}{lines}</figcaption></figure>\n"
    )


def _line(name: str, share: float, true: bool) -> str:
    """A class with its probability, before a bar of that length."""
    kind = "line true" if true else "line"
    bar = f'<b style="width:{share:.1%}"></b>'
    return f'<span class="{kind}" title="{_text(name)}">{bar}<span>{_name(name)}<span>{share:.0%}</span></span></span>'


def _confusion(result: Evaluation) -> Iterator[str]:
    yield "<h2>Which classes are confused</h2>"
    used = result.used
    pairs = _pairs(result)
    if len(used) <= figures.MOST_NUMBERS:
        yield _matrix(result)
        yield "<p class=note>Rows: true class; columns: class predicted; in percent of each row.</p>"
        yield pairs
    else:
        picture = _drawn(figures.confusion(result), "confusion matrix")
        yield f"<div class=beside><div>{picture}</div><div>{pairs}</div></div>"
    counts = figures.confusion_csv(result).encode()
    if len(counts) <= MOST_CSV:
        yield f'<p><a download="confusion.csv" href="{_data(counts, "text/csv")}">The counts as CSV</a></p>'
    else:
        yield (
            "<p class=note>The counts are too many for this page: <code>alexnet evaluate RUN --data STORE --out FOLDER</code> "
            "writes them as CSV.</p>"
        )


def _matrix(result: Evaluation) -> str:
    names = {number: f'title="{_text(result.classes[number])}"' for number in result.used.tolist()}
    head = "".join(f"<th scope=col {title}><div>{_name(result.classes[number])}</div></th>" for number, title in names.items())
    rows = "".join(
        f"<tr><th scope=row {title}>{_name(result.classes[number])}</th>"
        f"{''.join(_cell(result.shares[number, other]) for other in names)}</tr>\n"
        for number, title in names.items()
    )
    return f"<div class=wide><table class=matrix><tr><td></td>{head}</tr>\n{rows}</table></div>"


def _cell(share: float) -> str:
    if share < 0.005:
        return "<td></td>"
    colour = ";color:#fff" if share > 0.5 else ""
    return f'<td style="background:rgba(31,95,168,{share:.2f}){colour}">{100 * share:.0f}</td>'


def _pairs(result: Evaluation) -> str:
    """The pairs of classes that are confused most often."""
    wrong = result.confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    rows = [
        [_name(result.classes[i]), _name(result.classes[j]), f"{wrong[i, j]:,}", f"{result.shares[i, j]:.1%}"]
        for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[i, j]
    ]
    if not rows:
        return "<p>No class was confused with another.</p>"
    return "<h3>Most frequent mistakes</h3>" + _table(["true class", "taken for", "pictures", "of class"], rows, 2)


def _classes(result: Evaluation) -> Iterator[str]:
    tested = [row for row in result.as_json()["per_class"] if row["images"]]
    tested.sort(key=lambda row: -row["top1_error"])
    rows = []
    for row in tested:
        low, high = row["top1_interval"]
        rows.append([_name(row["class"]), f"{row['images']:,}", f"{row['top1_error']:.1%}", f"{low:.1%} to {high:.1%}"])
    yield "<h2>Each class</h2>"
    table = _table(["class", "pictures", "top-1 error", "95% interval"], rows, 3)
    yield _folded(f"{len(rows):,} classes, those with the most errors first", table, len(rows) <= OPEN_ROWS)
