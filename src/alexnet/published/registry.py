"""What others publish and we use, trained AlexNets and data sets: where each file is, and what it
must be to the bit. `download.py` obtains files, `data.py` data sets.

| name | file | top-1 / top-5 accuracy on ILSVRC2012's validation pictures, centre crop |
| --- | --- | --- |
| caffe | bvlc_alexnet.caffemodel | 57.1 / 80.2 |
| caffenet | bvlc_reference_caffenet.caffemodel | 57.4 / 80.4 |
| torchvision | alexnet-owt-7be5be79.pth | 56.522 / 79.066 |
| torchvision-2016 | alexnet-owt-4df8aa71.pth | 56.55 / 79.09 |
| caffe-mean | imagenet_mean.binaryproto | the mean picture that both of Caffe's networks need |

Where the facts come from (each is repeated at its entry): Caffe's `readme.md` of each model gives
address, licence, SHA-1 and accuracy; torchvision's `AlexNet_Weights` gives the address and accuracy
of its file. Neither states a SHA-256 or a length in bytes: these are from those who had downloaded
the files and pinned them.

| name | photos | classes |
| --- | --- | --- |
| flowers | 3,670 | 5 flowers |
| imagenette, imagenette-320, imagenette-160 | 9,469 + 3,925 | 10 easy ones of ImageNet |
| fashion-mnist | 60,000 + 10,000 grey pictures of 28 x 28 pixels | 10 kinds of clothes |
"""

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alexnet.errors import CheckpointError, UsageError, nearest

MB = 1_000_000
CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class TarMember:
    """The one file that we use out of a published tar.

    Attributes:
        file: its name in the tar, and the name it gets.
        most: bytes that it may have; a larger one is not unpacked.
        sha1: as others state it; the tar's own hash is what makes it trusted.
    """

    file: str
    most: int
    sha1: str


@dataclass(frozen=True, kw_only=True)
class Published:
    """One published file.

    Attributes:
        name: what `pull` takes.
        file: its name in the cache.
        bytes: exact length.
        unpacked_sha256: for a .gz, of its content. A file of that content is the published one,
            whatever program compressed it: packagers compress again.
        sha256, sha1: hexadecimal; both must hold. `sha1` is None where the publisher gives none.
        licence: in the publisher's words.
        variant: name of the network in `alexnet.variants`; None for a file that is not a network.
        top1, top5: accuracy in percent as published, on ILSVRC2012's 50,000 validation
            pictures; None for a file that is not a network.
        protocol: how that was measured.
        companion: name of another entry without which this one cannot be used.
        elsewhere: what a user can do if the server does not help; ends a sentence. By
            default another server, or the file put into the cache by hand.
        member: the file that we use if this one is a tar.
    """

    name: str
    file: str
    url: str
    bytes: int
    sha256: str
    sha1: str | None = None
    unpacked_sha256: str | None = None
    elsewhere: str | None = None
    licence: str
    variant: str | None = None
    top1: float | None = None
    top5: float | None = None
    protocol: str = ""
    companion: str | None = None
    member: TarMember | None = None


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A published data set: files that a source reads, or one archive of a folder of photos.

    Attributes:
        name: what `data.pull` takes, and the name of its folder in the cache.
        files: as the authors publish them.
        unpacks: for an archive, the folder in it that is the source; None if the files are.
        photos: how many to train on and, where the authors held some out, to test with.
        classes: their names in the order of the labels.
        package: of Debian and its like, which holds the same files in /usr/share/datasets/`name`.
        error: what to expect of it, per cent of the held-out pictures; None without a record.
        measured: how that was measured, in a few words.
        record: the folder in `records/` with the runs.
    """

    name: str
    files: tuple[Published, ...]
    unpacks: str | None = None
    photos: tuple[int, ...]
    classes: tuple[str, ...]
    package: str | None = None
    error: float | None = None
    measured: str = ""
    record: str | None = None

    @property
    def bytes(self) -> int:
        """Of all files, as they are downloaded."""
        return sum(file.bytes for file in self.files)


# Address, licence, SHA-1, accuracy: Caffe's models/bvlc_alexnet/readme.md. Length and SHA-256:
# OpenVINO's open_model_zoo, models/public/alexnet/model.yml, for the same address.
CAFFE = Published(
    name="caffe",
    file="bvlc_alexnet.caffemodel",
    url="http://dl.caffe.berkeleyvision.org/bvlc_alexnet.caffemodel",
    bytes=243_862_414,
    sha256="4bff209a9837298157915ef50a4831a59636a6ca1a6b8ebacd990c3a5f3053e0",
    sha1="9116a64c0fbe4459d18f4bb6b56d647b63920377",
    licence="unrestricted",
    variant="caffe",
    top1=57.1,
    top5=80.2,
    protocol="one view: the picture squashed to 256 × 256, centre 227 × 227",
    companion="caffe-mean",
)
# The same readme in models/bvlc_reference_caffenet; open_model_zoo's
# models/public/caffenet/model.yml. Homebrew's and Nixpkgs' recipes for
# Caffe pin the same SHA-256.
CAFFENET = replace(
    CAFFE,
    name="caffenet",
    file="bvlc_reference_caffenet.caffemodel",
    url="http://dl.caffe.berkeleyvision.org/bvlc_reference_caffenet.caffemodel",
    bytes=243_862_418,
    sha256="472d4a06035497b180636d8a82667129960371375bd10fcb6df5c6c7631f25e0",
    sha1="4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46",
    variant="caffenet",
    top1=57.4,
    top5=80.4,
)
# Address and length: tensorpack's dataflow/dataset/ilsvrc.py. SHA-256: a Yocto recipe for Caffe
# (one source; its SHA-256 of CaffeNet is that of the others). SHA-1 of the mean that Caffe's
# networks use: MXNet's tools/caffe_converter/model_zoo.py. No source states a licence. 3 ×
# 256 × 256 float32 take 786,432 bytes and protobuf's few around them.
CAFFE_MEAN = Published(
    name="caffe-mean",
    file="caffe_ilsvrc12.tar.gz",
    url="http://dl.caffe.berkeleyvision.org/caffe_ilsvrc12.tar.gz",
    bytes=17_858_008,
    sha256="e35c0c1994a21f7d8ed49d01881ce17ab766743d3b0372cdc0183ff4d0dfc491",
    licence="none stated",
    member=TarMember(file="imagenet_mean.binaryproto", most=MB, sha1="63e4652e656abc1e87b7a8339a7e02fca63a2c0c"),
)
# Address, accuracy, 233.087 MiB: torchvision's models/alexnet.py. Length and SHA-256: a dozen
# projects that pin LPIPS's backbone agree on them; the file's name has the first eight digits,
# and the length is 233.087 MiB.
TORCHVISION = Published(
    name="torchvision",
    file="alexnet-owt-7be5be79.pth",
    url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    bytes=244_408_911,
    sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
    # The licence covers torchvision's code; its readme says of the weights only that the data they
    # saw may bind the user.
    licence="BSD-3-Clause (torchvision's; none is stated for the weights alone)",
    variant="torchvision",
    top1=56.522,
    top5=79.066,
    protocol="one view: short side 256, centre 224 × 224",
)
# Address: torchvision's models/alexnet.py in earlier releases. SHA-256: a Yocto recipe
# (one source; the file's name has its first eight digits). Length: four logs of downloads
# agree. Accuracy: 100 minus the errors 43.45 and 20.91 of torchvision's table of that
# time; that table names no file.
TORCHVISION_2016 = replace(
    TORCHVISION,
    name="torchvision-2016",
    file="alexnet-owt-4df8aa71.pth",
    url="https://download.pytorch.org/models/alexnet-owt-4df8aa71.pth",
    bytes=244_418_560,
    sha256="4df8aa717fd11ab2d34e9483c5984ef7cdbefd732366a836076020db08909c9a",
    top1=56.55,
    top5=79.09,
)

REGISTRY = (CAFFE, CAFFENET, CAFFE_MEAN, TORCHVISION, TORCHVISION_2016)

# Address, length and SHA-256: TensorFlow Datasets 4.9, tf_flowers. The licence is in the archive.
FLOWERS = DataSet(
    name="flowers",
    files=(
        Published(
            name="flowers",
            file="flower_photos.tgz",
            url="http://download.tensorflow.org/example_images/flower_photos.tgz",
            bytes=228_813_984,
            sha256="4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c",
            licence="CC-BY 2.0 (each photographer is named in LICENSE.txt)",
        ),
    ),
    unpacks="flower_photos",
    photos=(3670,),
    classes=("daisy", "dandelion", "roses", "sunflowers", "tulips"),
)


def _imagenette(name: str, file: str, length: int, sha256: str) -> DataSet:
    return DataSet(
        name=name,
        files=(
            Published(
                name=name,
                file=f"{file}.tgz",
                url=f"https://s3.amazonaws.com/fast-ai-imageclas/{file}.tgz",
                bytes=length,
                sha256=sha256,
                licence="Apache-2.0 (the selection; the photos are ImageNet's, for research)",
            ),
        ),
        unpacks=file,
        photos=(9469, 3925),
        classes=(
            "tench",
            "English springer",
            "cassette player",
            "chain saw",
            "church",
            "French horn",
            "garbage truck",
            "gas pump",
            "golf ball",
            "parachute",
        ),
        error=33.0,
        measured="small-photos from scratch, 64 pixels, 10 epochs, on copies of 144 x 144 pixels",
        record="2026-11-23_imagenette-small-photos",
    )


# Lengths and SHA-256: TensorFlow Datasets 4.9, imagenette; those who pinned the files lately agree.
# The archives at these addresses were once written anew: until then they had 1,556,914,727,
# 341,553,947 and 98,948,031 bytes, which some projects still pin.
IMAGENETTE = _imagenette(
    "imagenette", "imagenette2", 1_557_161_267, "6cbfac238434d89fe99e651496f0812ebc7a10fa62bd42d6874042bf01de4efd"
)
IMAGENETTE_320 = _imagenette(
    "imagenette-320", "imagenette2-320", 341_663_724, "569b4497c98db6dd29f335d1f109cf315fe127053cedf69010d047f0188e158c"
)
IMAGENETTE_160 = _imagenette(
    "imagenette-160", "imagenette2-160", 99_003_388, "64d0c4859f35a461889e0147755a999a48b49bf38a7e0f9bd27003f10db02fe5"
)


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


#: H. Xiao, K. Rasul, R. Vollgraf, 2017: pictures of clothes. Address: the authors' readme. Lengths
#: and SHA-256 of the compressed files: TensorFlow Datasets and a dozen projects that pin them
#: agree; of what they hold: from Debian's package, whose .gz differ.
FASHION_MNIST = DataSet(
    name="fashion-mnist",
    photos=(60_000, 10_000),
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
    error=10.9,
    measured="laptop, 64 pixels, 3 epochs",
    record="2026-11-23_fashion-mnist-laptop",
)

DATA_SETS = (FLOWERS, IMAGENETTE, IMAGENETTE_320, IMAGENETTE_160, FASHION_MNIST)


@dataclass(frozen=True)
class Verified:
    """A local file, compared with the published ones.

    Attributes:
        bytes: its length.
        entry: the published file that it equals, to the bit, or None.
    """

    path: Path
    bytes: int
    sha256: str
    sha1: str
    entry: Published | None


def names() -> tuple[str, ...]:
    """The names that `get_published` and `pull` accept."""
    return tuple(entry.name for entry in REGISTRY)


def get_published(name: str) -> Published:
    """The entry of that name.

    Raises:
        UsageError: an unknown name; the message lists the known ones.
    """
    for entry in REGISTRY:
        if entry.name == name:
            return entry
    raise UsageError(f"no published weights are called {name!r}: {nearest(name, names())}")


def cache_folder() -> Path:
    """Where downloads are kept: $ALEXNET_CACHE, else
    $XDG_CACHE_HOME/alexnet, else ~/.cache/alexnet."""
    if own := os.environ.get("ALEXNET_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alexnet"


def cached(entry: Published, cache: Path | None = None) -> Path | None:
    """The path of `entry` in the cache if a file of its name and length is there, else None; `pull`
    also checks the hashes.
    """
    path = (cache or cache_folder()) / entry.file
    return path if size(path) == entry.bytes else None


def unpacked(entry: Published) -> Path | None:
    """What `pull` gives for an entry, if the cache has it: the file, or the member of a tar."""
    if entry.member is None:
        return cached(entry)
    path = cache_folder() / entry.member.file
    return path if path.is_file() else None


def networks() -> list[Published]:
    """The entries that are networks."""
    return [entry for entry in REGISTRY if entry.variant]


def downloaded() -> list[Published]:
    """The published networks in the cache that can be used: with their mean, if they need one."""
    return [entry for entry in networks() if usable(entry)]


def usable(entry: Published) -> tuple[Path, Path | None] | None:
    """A network's file in the cache, and its mean if it needs one; None if either is not there."""
    file, mean = cached(entry), unpacked(get_published(entry.companion)) if entry.companion else None
    return None if file is None or (entry.companion and mean is None) else (file, mean)


def rows(cache: Path | None = None) -> list[dict[str, Any]]:
    """A row for each published file: name, variant, mb, licence, top1, top5 (percent), protocol,
    cached (a path or None)."""
    return [
        {
            "name": entry.name,
            "variant": entry.variant,
            "mb": round(entry.bytes / MB, 1),
            "licence": entry.licence,
            "top1": entry.top1,
            "top5": entry.top5,
            "protocol": entry.protocol,
            "cached": str(path) if (path := cached(entry, cache)) else None,
        }
        for entry in REGISTRY
    ]


def verify(path: str | Path) -> Verified:
    """Which published file a local one is, whatever its name.

    Raises:
        CheckpointError: it cannot be read.
    """
    path = Path(path)
    try:
        length, (sha256, sha1) = path.stat().st_size, digests(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}): name a file.") from error
    entries = (
        entry
        for entry in REGISTRY
        if (entry.bytes, entry.sha256) == (length, sha256) or (entry.member and entry.member.sha1 == sha1)
    )
    return Verified(path, length, sha256, sha1, next(entries, None))


def size(path: Path) -> int:
    """Bytes; 0 if there is no such file."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def digests(path: Path) -> tuple[str, str]:
    """SHA-256 and SHA-1, hexadecimal."""
    sha256, sha1 = hashlib.sha256(), hashlib.sha1(usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            sha256.update(chunk)
            sha1.update(chunk)
    return sha256.hexdigest(), sha1.hexdigest()
