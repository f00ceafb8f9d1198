"""`alexnet explain`: a page that shows the network at work on a picture."""

from pathlib import Path
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, Positional, arg

from alexnet.cli.next_step import next_step
from alexnet.cli.options import DataIfAny
from alexnet.cli.tables import print_path
from alexnet.console import say
from alexnet.data.limits import MAX_PIXELS
from alexnet.errors import OutputError, SourceError
from alexnet.words import Language


def explain(
    photo: Positional[Annotated[Path, arg(metavar="PHOTO")]],
    out: Annotated[Path, arg(aliases=["-o"])] = Path("page.html"),
    run: Annotated[str | None, arg(metavar="RUN")] = None,
    variant: str | None = None,
    data: DataIfAny = None,
    lang: Language | None = None,
    open: FlagCreatePairsOff[bool] = False,
    max_pixels: int = MAX_PIXELS,
) -> None:
    """Write a page that shows the network at work on a picture of yours, down to each number.

    The page is one file that includes everything, so it can be sent on and opened offline.

    Args:
        photo: the picture.
        out: the file to write, ending in .html.
        run: the network: a run's folder, a file of weights, or the name of published weights in
            the cache. By default published weights in the cache, else the demo's run, else an
            untrained network.
        variant: which AlexNet it is, if the file does not say so, or which one to take untrained:
            paper, code-2012, caffe, caffenet, owt or torchvision.
        data: a store: shows for the strongest kernels which of its training pictures they answer
            most. The first time takes one pass over them.
        lang: the language in which the page opens; the browser's own by default.
        open: open the page in the browser.
        max_pixels: refuse a picture with more pixels, as `alexnet predict` does.
    """
    from alexnet.arguments import check_count, check_here
    from alexnet.data.store import Store
    from alexnet.files import make_ready
    from alexnet.web import export, shown
    from alexnet.web.scene import Scene
    from alexnet.web.units import Liked

    check_count("max_pixels", max_pixels)
    check_here(photo, "pictures", SourceError)
    if out.suffix.lower() not in (".html", ".htm"):
        raise OutputError(f"out (={out}) must end in .html.")
    make_ready(out)
    picture = _read(photo)
    network = shown.usual(variant) if run is None else shown.find(run, variant)
    if run is None:
        say(network.choice)
    for remark in network.remarks:
        say(f"alexnet: {remark}.")
    liked = Liked.of(network, Store(data)) if data else None
    scene = Scene.of(network, picture, photo.name, liked, max_pixels)
    if (frames := scene.description["picture"]["frames"]) > 1:
        say(f"alexnet: {photo} holds {frames} pictures: the first one is shown.")
    print_path(export.write(out, scene, lang))
    if open:
        import webbrowser

        webbrowser.open(out.absolute().as_uri())
    next_step(
        "serve",
        *([run] if run else []),
        *(["--data", data] if data else []),
        *(["--variant", variant] if run and variant else []),
    )


def _read(photo: Path) -> bytes:
    """The picture's content."""
    from alexnet.data.image import Unreadable
    from alexnet.data.sources import read_picture

    if photo.is_dir():
        raise SourceError(f"{photo} is a folder, and a page shows one picture: name one of the pictures in it.")
    try:
        return read_picture(photo)
    except (OSError, ValueError, Unreadable) as error:
        raise SourceError(f"{photo} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
