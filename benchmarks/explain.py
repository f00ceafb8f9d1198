"""The explanation page: how long `alexnet explain` takes, how large its file is, and how soon
`alexnet serve` answers.

    python benchmarks/explain.py [PHOTO]

At full and half width of the paper's network with a thousand classes, weights by chance. The file
is written by the command itself, Python's start included; a scene is timed over a connection to the
server, from the picture's bytes to the scene's last one, after one scene that does not count.
Without a photo a drawn one of 4,000 x 3,000 pixels is taken, as a phone has them. The last line is
one JSON object.
"""

import argparse
import http.client
import io
import json
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
PHONE = (4000, 3000)


def weights(folder: Path, width: float) -> Path:
    """A file of ours with a network of this width."""
    model = AlexNet("paper", torch.Generator().manual_seed(0), width=width)
    path = folder / f"{width}.safetensors"
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
        config = uvicorn.Config(server.create_app(studio), log_config=None, lifespan="off", ws="none")
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


def main() -> None:
    """Time both and print the table and the line."""
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
            network = weights(folder, factor)
            seconds, length = written(picture, network, folder, arguments.runs)
            answer, scene = served(picture.read_bytes(), network, 2 * arguments.runs)
            print(f"{width:8}{seconds:10.2f}{length / 1e6:10.1f}{answer:10.3f}{scene / 1e6:11.1f}")
            results[width] = {
                "seconds": round(seconds, 2),
                "bytes": length,
                "scene_seconds": round(answer, 3),
                "scene_bytes": scene,
            }
    print(json.dumps({"benchmark": "explain", **results, "environment": environment()}))


if __name__ == "__main__":
    main()
