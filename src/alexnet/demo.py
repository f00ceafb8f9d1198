"""`make demo`: everything once, on real pictures, in minutes.

Fashion-MNIST (Xiao, Rasul, Vollgraf, 2017) has 60,000 pictures of clothes to train on and 10,000 to
test, 28 x 28 grey pixels, in 10 classes. It is taken from Debian's package where that is installed;
else the package is fetched and unpacked into the user's cache without root; else the four files
come from the authors' canonical address. Each file's checksum is compared.
"""

import gzip
import shutil
import subprocess
import tempfile
import time
import urllib.request
import zlib
from pathlib import Path
from statistics import median
from typing import Any

import torch

from alexnet import engines, report
from alexnet.console import say
from alexnet.data.prepare import prepare
from alexnet.data.store import MANIFEST, Store, sha256
from alexnet.errors import Interrupted, SourceError
from alexnet.evaluate import evaluate_classifier
from alexnet.files import replacing
from alexnet.model import AlexNet
from alexnet.published.registry import cache_folder
from alexnet.run_folder import REPORT, RESULT, is_run
from alexnet.train import recipes
from alexnet.train.loop import train
from alexnet.train.recipes import Recipe

DEBIAN_PACKAGE, DEBIAN_FOLDER = "dataset-fashion-mnist", Path("usr/share/datasets/fashion-mnist")
CANONICAL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
#: SHA-256 of the unpacked files: Debian and the authors compress them differently.
CHECKSUMS = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
CLASSES = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
STORE_SIZE = 72
#: How the time is foretold: from the median of a few plain steps of 64 pictures. On two cores,
#: compiled, the steps that train take GAIN times less; testing 10,000 pictures costs as much as 100
#: steps; the rest is preparing, compiling, the report.
TIMED_STEPS, STEPS, TEST_STEPS, GAIN, OTHER_SECONDS = 6, 937, 100, 1.75, 40


def demo(out: Path, epochs: int | None = None) -> dict[str, Any]:
    """Prepare, train, test, report. Run again after an interruption, it goes on.

    Args:
        out: folder for `store`, `run` and `report.html`.
        epochs: in place of the recipe's.

    Returns:
        dataset, images (tested), top1_error (a share), seconds (of training),
        report (path of the page).
    """
    store_folder, run_folder = out / "store", out / "run"
    recipe = recipes.get("laptop", **({} if epochs is None else {"epochs": epochs}))
    say(_what_comes(recipe, run_folder))
    if not (store_folder / MANIFEST).exists():
        prepare([fashion_mnist()], store_folder, size=STORE_SIZE)
    store = Store(store_folder)
    try:
        trained = train(recipe, store, run_folder, resume=is_run(run_folder))
    except Interrupted as stop:
        raise Interrupted("stopped and saved: the same command goes on from here.") from stop
    result = evaluate_classifier(engines.of(trained), store)
    page = report.write(out / REPORT, "AlexNet on Fashion-MNIST", trained, store, result, run_folder)
    return {
        "dataset": "Fashion-MNIST",
        "images": result.images,
        "top1_error": round(result.top1_error, 6),
        "seconds": round(trained.state["seconds"], 1),
        "report": str(page),
    }


def ideas(out: Path) -> list[list[str]]:
    """What to try on the demo's store and run: words that follow `alexnet`, the first of them
    next.
    """
    run, data = str(out / "run"), ["--data", str(out / "store")]
    small = ["--width", "0.5", "--input-size", "64"]
    return [
        ["evaluate", run, *data, "--views", "10"],
        ["filters", run, "-o", str(out / "filters.png")],
        ["export", run, "--to", "safetensors", "-o", str(out / "fashion.safetensors")],
        ["doctor", "paper-text", *data, *small],
        ["train", "modern", *data, *small, "--epochs", "3", "--out", str(out / "modern")],
    ]


def _what_comes(recipe: Recipe, run: Path) -> str:
    """What the demo does, and how long it will take here."""
    if (run / RESULT).exists():
        return f"{run} is trained: it is tested again, and its report is written."
    minutes = max(1, round(_seconds(recipe) / 60))
    less = ", less what was done before" if is_run(run) else ""
    return (
        "The demo gets Fashion-MNIST (70,000 small pictures of clothes), trains AlexNet on it, tests it and writes a report: "
        f"about {minutes} minute{'s' if minutes > 1 else ''} on this machine as it is now{less}. Ctrl-C stops it, and the same "
        "command continues."
    )


def _seconds(recipe: Recipe) -> float:
    """How long all of it will take, by the time of a few steps on random pictures:
    the machine may be busy.
    """
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    generator = torch.Generator().manual_seed(0)
    model = AlexNet(recipe.network(len(CLASSES)), generator).to(device)
    size = model.variant.input_size
    x = torch.rand(recipe.batch_size, 3, size, size, generator=generator).to(device)
    times = []
    for _ in range(TIMED_STEPS):
        begun = time.monotonic()
        model.zero_grad()
        model(x).logsumexp(1).sum().backward()
        model.fc8.bias.detach().sum().item()  # waits for a GPU
        times.append(time.monotonic() - begun)
    return OTHER_SECONDS + recipe.epochs * (STEPS + TEST_STEPS) * median(times[2:]) / GAIN


def fashion_mnist() -> Path:
    """The folder of the four files and the class names, in the user's cache; obtained if need be.

    Raises:
        SourceError: no way led to files with the right checksums.
    """
    folder = cache_folder() / "fashion-mnist"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classnames.txt").write_text("\n".join(CLASSES) + "\n")
    if _whole(folder):
        return folder
    failures = []
    for way in (_from_debian_installed, _from_debian_archive, _from_canonical):
        try:
            way(folder)
        except (OSError, subprocess.SubprocessError) as error:
            failures.append(f"{way.__doc__} {error}")
        if _whole(folder):
            return folder
    reasons = "; ".join(failures)
    raise SourceError(
        f"Fashion-MNIST could not be obtained ({reasons}). Put its four .gz files into {folder} and run this again."
    )


def _whole(folder: Path) -> bool:
    """Whether all files are there and are what they should be; others are removed."""
    for name, expected in CHECKSUMS.items():
        path = folder / name
        if not path.exists():
            return False
        if sha256(_unpacked(path)) != expected:
            say(f"{path} has a wrong checksum and is obtained anew.")
            path.unlink()
            return False
    return True


def _unpacked(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error):
        return b""  # has a wrong checksum


def _from_debian_installed(folder: Path) -> None:
    """Debian's package is not installed:"""
    for name in CHECKSUMS:
        shutil.copyfile(Path("/") / DEBIAN_FOLDER / name, folder / name)


def _from_debian_archive(folder: Path) -> None:
    """Debian's package could not be fetched:"""
    with tempfile.TemporaryDirectory() as temporary:
        say(f"Fetching Debian's package {DEBIAN_PACKAGE} (31 MB) ...")
        options = {"cwd": temporary, "check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(["apt-get", "download", DEBIAN_PACKAGE], timeout=600, **options)  # type: ignore[call-overload]
        (package,) = Path(temporary).glob("*.deb")
        subprocess.run(["dpkg", "-x", package.name, "."], timeout=60, **options)  # type: ignore[call-overload]
        for name in CHECKSUMS:
            shutil.copyfile(Path(temporary) / DEBIAN_FOLDER / name, folder / name)


def _from_canonical(folder: Path) -> None:
    """The authors' address did not answer:"""
    for name in CHECKSUMS:
        say(f"Downloading {CANONICAL}{name} ...")
        with replacing(folder / name) as part, urllib.request.urlopen(CANONICAL + name, timeout=60) as answer:
            part.write_bytes(answer.read())
