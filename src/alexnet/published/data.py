"""The data sets that others publish: their files, and how they get here.

Fashion-MNIST (H. Xiao, K. Rasul, R. Vollgraf, 2017): 60,000 pictures of clothes to train on and
10,000 to test with, 28 x 28 grey pixels, 10 classes.
"""

import shutil
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from alexnet.console import say
from alexnet.files import replacing
from alexnet.published import download
from alexnet.published.registry import Published, cache_folder


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A published data set.

    Attributes:
        name: of its folder in the cache, too.
        files: what `alexnet prepare` reads, as the authors publish them.
        classes: names in the order of the labels; written beside the files as `classnames.txt`.
        package: of Debian and its like, which holds the same files in /usr/share/datasets/`name`.
    """

    name: str
    files: tuple[Published, ...]
    classes: tuple[str, ...]
    package: str | None = None


def _fashion(file: str, length: int, sha256: str, unpacked_sha256: str) -> Published:
    return Published(
        name=f"Fashion-MNIST's {file}",
        file=file,
        url=f"http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/{file}",
        bytes=length,
        sha256=sha256,
        unpacked_sha256=unpacked_sha256,
        licence="MIT",
    )


#: Address: the authors' readme. Lengths and SHA-256 of the compressed files: TensorFlow
#: Datasets and a dozen projects that pin them agree; of what they hold: from Debian's
#: package, whose .gz differ.
FASHION_MNIST = DataSet(
    name="fashion-mnist",
    files=(
        _fashion(
            "train-images-idx3-ubyte.gz",
            26_421_880,
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        ),
        _fashion(
            "train-labels-idx1-ubyte.gz",
            29_515,
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        ),
        _fashion(
            "t10k-images-idx3-ubyte.gz",
            4_422_102,
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        ),
        _fashion(
            "t10k-labels-idx1-ubyte.gz",
            5_148,
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
    classes=("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
    package="dataset-fashion-mnist",
)


def pull(data: DataSet) -> Path:
    """Obtain a data set: what the cache lacks comes from the system's package of it if that can be
    had, else from its authors.

    Returns:
        Its folder in the cache, a source for `alexnet prepare`.

    Raises:
        DownloadError: there was no way to a file; the message says which are
            missing, and where to put them.
    """
    folder = cache_folder() / data.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classnames.txt").write_text("\n".join(data.classes) + "\n")
    missing = _missing(data, folder)
    if missing and data.package:
        _from_package(data.package, folder, missing)
        missing = _missing(data, folder)
    for number, file in enumerate(missing):
        names = ", ".join(one.file for one in missing[number:])
        by_hand = f"put {names} into {folder} yourself and run the same command again."
        download.pull(replace(file, elsewhere=by_hand), cache=folder)
    return folder


def _missing(data: DataSet, folder: Path) -> list[Published]:
    return [file for file in data.files if not download.is_whole(file, folder / file.file)]


def _from_package(package: str, folder: Path, files: list[Published]) -> None:
    """Copy files out of a package, installed or fetched by apt-get, which needs no root;
    none if neither is possible.
    """
    inside = Path("usr/share/datasets") / folder.name
    with suppress(OSError, subprocess.SubprocessError), tempfile.TemporaryDirectory() as temporary:
        root = Path("/")
        if not (root / inside).exists() and shutil.which("apt-get"):
            say(f"Fetching the package {package} ...")
            root = Path(temporary)
            fetch = f"apt-get download {package} && dpkg -x {package}_*.deb ."
            subprocess.run(["sh", "-c", fetch], cwd=root, capture_output=True, timeout=600, check=True)
        for file in files:
            with replacing(folder / file.file) as part:
                shutil.copyfile(root / inside / file.file, part)
