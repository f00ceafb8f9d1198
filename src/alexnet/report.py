"""A run on one page: `report/index.html` with its pictures beside it."""

import html
import json
from pathlib import Path
from typing import Any

import numpy as np

from alexnet import engines, figures
from alexnet.console import duration
from alexnet.data.store import Store
from alexnet.evaluate import Evaluation
from alexnet.inspect.filters import first_layer
from alexnet.predict import Prediction, classify_records
from alexnet.weights.native import Trained

SHEET_PICTURES = 16
SUMMED = " and summed over its channels, since the pictures are grey"

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
img {{ max-width: 100% }} table {{ border-collapse: collapse }} td, th {{ padding: .15rem .8rem .15rem 0; text-align: left }}
td.n {{ text-align: right; font-variant-numeric: tabular-nums }} p.note {{ color: #555 }}
</style></head><body>
<h1>{title}</h1>
<p><b>Top-1 error {top1:.2%}</b> (accuracy {accuracy:.2%}) on {images:,} test pictures; trained for {seconds}{progress}.</p>
<h2>Training</h2><img src="curves.png" alt="loss, error and learning rate over training">
<h2>The first layer</h2><img src="filters.png" alt="first-layer filters">
<p class="note">Each square is one kernel of conv1, stretched to its full range{grey}; the towers see the same picture and
share nothing until conv3. After a short training on few pictures much of the random start still shows.</p>
<h2>Predictions</h2><img src="predictions.png" alt="test pictures with the five most likely classes">
<p class="note">Drawn at random from the test pictures: true class above, the five most likely below, the true one in pink.</p>
<h2>Who is taken for whom</h2><img src="confusion.png" alt="confusion matrix">
<p class="note">In per cent of each row; counts are in <a href="confusion.csv">confusion.csv</a>.</p>
<table><tr><th>class</th><th>pictures</th><th>top-1 error</th></tr>{rows}</table>
<h2>How it was made</h2><table>{facts}</table>
</body></html>
"""


def write(folder: Path, title: str, trained: Trained, store: Store, result: Evaluation, run: Path) -> Path:
    """Draw everything about a run.

    Args:
        folder: where to write; made if needed.
        run: the run's folder, for its log and configuration.

    Returns:
        The page's path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    config = json.loads((run / "config.json").read_text())
    environment = json.loads((run / "environment.json").read_text())
    figures.curves(log, folder / "curves.png")
    done, epochs = trained.state["epoch"], config["recipe"]["epochs"]
    grey = store.statistics.axis_deviations[1] < 1  # colours vary by less than one level
    figures.filters(first_layer(trained.model, grey), folder / "filters.png")
    figures.sheet(_examples(trained, store), folder / "predictions.png")
    figures.confusion(result, folder / "confusion.png")
    figures.confusion_csv(result, folder / "confusion.csv")
    page = PAGE.format(
        title=html.escape(title),
        top1=result.top1_error,
        accuracy=1 - result.top1_error,
        images=result.images,
        seconds=duration(trained.state["seconds"]),
        progress=f", stopped in epoch {done + 1} of {epochs}" if done < epochs else "",
        grey=SUMMED if grey else "",
        rows=_class_rows(result),
        facts=_facts(config["recipe"], environment),
    )
    path = folder / "index.html"
    path.write_text(page, encoding="utf-8")
    return path


def _examples(trained: Trained, store: Store) -> list[Prediction]:
    """Predictions on test pictures drawn with a fixed seed."""
    split = store.held_out
    chosen = np.sort(np.random.default_rng(0).choice(len(split), min(SHEET_PICTURES, len(split)), replace=False))
    unnamed = [Prediction(str(index), record=split.records[index], true=store.classes[split.labels[index]]) for index in chosen]
    return classify_records(engines.of(trained), unnamed)


def _class_rows(result: Evaluation) -> str:
    return "".join(
        f"<tr><td>{html.escape(row['class'])}</td><td class=n>{row['images']:,}</td>"
        f"<td class=n>{'-' if row['top1_error'] is None else format(row['top1_error'], '.1%')}</td></tr>"
        for row in result.as_json()["per_class"]
    )


def _facts(recipe: dict[str, Any], environment: dict[str, Any]) -> str:
    return "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(str(value))}</td></tr>"
        for name, value in {**recipe, **environment}.items()
    )
