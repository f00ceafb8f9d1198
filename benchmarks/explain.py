"""The explanation page: how long `alexnet explain` takes, how large its file is, how soon
`alexnet serve` answers, and how soon the page does in a browser.

    python benchmarks/explain.py [PHOTO]

At full and half width of the paper's network with a thousand classes, weights by chance. The file
is written by the command itself, Python's start included; a scene is timed over a connection to the
server, from the picture's bytes to the scene's last one, after one scene that does not count.
Without a photo a drawn one of 4,000 x 3,000 pixels is taken, as a phone has them.

Where Chromium is installed the file is opened in it, without a window and without a GPU, at 1,280 x
800 pixels, and so is one of the demo's network (half width, 64 pixels, ten classes). "view" is the
time from the scene's arrival to the first frame that shows it; "pointer" the 95th percentile of the
milliseconds in which a move of the pointer over a stage's map is answered, its layout and painting
commands included. The last line is one JSON object.
"""

import argparse
import http.client
import io
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
import uvicorn
from PIL import Image

from alexnet.model import AlexNet
from alexnet.run_folder import environment
from alexnet.trained import Trained
from alexnet.web import sample, server
from alexnet.web.shown import offers
from alexnet.weights import importer, native

WIDTHS = {"full": 1.0, "half": 0.5}
DEMO = {"width": 0.5, "input_size": 64, "num_classes": 10}
PHONE = (4000, 3000)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
#: Takes the time from `open`, which is called when a scene has arrived, to the second frame after.
VIEW = """Object.defineProperty(window, "alexnet", { configurable: true, set(app) {
  Object.defineProperty(window, "alexnet", { value: app });
  const open = app.open.bind(app);
  app.open = scene => {
    const start = performance.now();
    open(scene);
    requestAnimationFrame(() => requestAnimationFrame(() => window.seen = performance.now() - start));
  };
} });"""
WAIT = "(async () => { while (!window.seen) await new Promise(done => setTimeout(done, 10)); return window.seen })()"
#: Moves over a layer's map along a diagonal of many cells; milliseconds of each answer.
MOVES = """async layer => {
  alexnet.goto({ view: "layer", layer });
  const map = document.querySelector(".plane.output canvas");
  const box = map.getBoundingClientRect();
  const times = [];
  for (let move = 0; move < 120; move++) {
    await new Promise(done => requestAnimationFrame(done));
    const x = box.left + box.width * ((move * 37 % 120) + 0.5) / 120;
    const y = box.top + box.height * ((move * 53 % 120) + 0.5) / 120;
    const start = performance.now();
    map.dispatchEvent(new PointerEvent("pointermove", { bubbles: true, pointerType: "mouse", clientX: x, clientY: y }));
    document.body.getBoundingClientRect();
    times.push(performance.now() - start);
  }
  return times;
}"""


def weights(folder: Path, **changes: Any) -> Path:
    """A file of ours with a changed network of the paper."""
    model = AlexNet("paper", torch.Generator().manual_seed(0), **changes)
    path = folder / f"{'-'.join(map(str, changes.values()))}.safetensors"
    preprocessing = importer.published_preprocessing(model.variant)
    native.save(path, Trained(model, importer.default_classes(model.variant), preprocessing, {}, {}))
    return path


def photo(folder: Path) -> Path:
    """The sample as large as a phone's photo."""
    path = folder / "photo.jpg"
    Image.open(io.BytesIO(sample.picture())).resize(PHONE, Image.Resampling.BICUBIC).save(path, quality=92)
    return path


def written(picture: Path, network: Path, folder: Path, runs: int) -> tuple[float, int]:
    """Seconds of the command, the median of some runs, and bytes of the file."""
    page, seconds = folder / "page.html", []
    for _ in range(runs):
        start = time.monotonic()
        words = ["explain", picture, "--run", network, "-o", page]
        subprocess.run([sys.executable, "-m", "alexnet", *map(str, words)], check=True, capture_output=True)
        seconds.append(time.monotonic() - start)
    return statistics.median(seconds), page.stat().st_size


def served(picture: bytes, network: Path, runs: int) -> tuple[float, int]:
    """Seconds from a picture to its scene over a connection, the median of some, and bytes."""
    studio = server.Studio(offers([str(network)]))
    with server.listen(0) as listening:
        config = server.configured(server.create_app(studio))
        serving = uvicorn.Server(config)
        thread = threading.Thread(target=serving.run, args=([listening],))
        thread.start()
        seconds, length = [], 0
        for run in range(runs + 1):
            connection = http.client.HTTPConnection(*listening.getsockname(), timeout=60)
            start = time.monotonic()
            connection.request("POST", "/scene", picture, {server.TOKEN: studio.token})
            length = len(connection.getresponse().read())
            if run:
                seconds.append(time.monotonic() - start)
            connection.close()
        serving.should_exit = True
        thread.join()
    return statistics.median(seconds), length


def browsed(page: Path) -> dict[str, float]:
    """Milliseconds until the first view, and of the pointer's answer on the slowest stage."""
    from playwright.sync_api import sync_playwright

    address = page.resolve().as_uri()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--disable-gpu"], chromium_sandbox=False)
        views = []
        for _ in range(3):
            tab = browser.new_page(viewport={"width": 1280, "height": 800})
            tab.add_init_script(VIEW)
            tab.goto(address)
            views.append(tab.evaluate(WAIT))
        layers = tab.evaluate("alexnet.scene.layers.filter(layer => layer.output[1] > 1).map(layer => layer.name)")
        slowest = {layer: statistics.quantiles(tab.evaluate(MOVES, layer), n=20)[-1] for layer in layers}
        browser.close()
    return {"view_ms": round(statistics.median(views), 1), "pointer_ms": round(max(slowest.values()), 1)}


def main() -> None:
    """Time all of it and print the table and the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path, nargs="?")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()

    results: dict[str, Any] = {}
    print(f"{'width':8}{'file, s':>10}{'file, MB':>10}{'scene, s':>10}{'scene, MB':>11}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        picture = arguments.photo or photo(folder)
        for width, factor in WIDTHS.items():
            network = weights(folder, width=factor)
            seconds, length = written(picture, network, folder, arguments.runs)
            answer, scene = served(picture.read_bytes(), network, 2 * arguments.runs)
            print(f"{width:8}{seconds:10.2f}{length / 1e6:10.1f}{answer:10.3f}{scene / 1e6:11.1f}")
            results[width] = {
                **(browsed(folder / "page.html") if CHROMIUM else {}),
                "seconds": round(seconds, 2),
                "bytes": length,
                "scene_seconds": round(answer, 3),
                "scene_bytes": scene,
            }
        if CHROMIUM:
            written(picture, weights(folder, **DEMO), folder, 1)
            results["demo"] = browsed(folder / "page.html")
    if CHROMIUM:
        print(f"\n{'width':8}{'view, ms':>10}{'pointer, ms':>13}")
        for width, found in results.items():
            print(f"{width:8}{found['view_ms']:10.1f}{found['pointer_ms']:13.1f}")
    else:
        print("The page was not timed in a browser: Chromium is not installed.")
    print(json.dumps({"benchmark": "explain", **results, "environment": environment()}))


if __name__ == "__main__":
    main()
