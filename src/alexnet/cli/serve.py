"""`alexnet serve`: the page that explains a network, on this machine, for any picture."""

from typing import Annotated

from tyro.conf import FlagCreatePairsOff, Positional, arg

from alexnet.cli.options import DataIfAny
from alexnet.console import say
from alexnet.data.limits import MAX_PIXELS
from alexnet.words import Language

PORT = 2012


def serve(
    runs: Positional[Annotated[tuple[str, ...], arg(metavar="[RUN ...]", help_behavior_hint="")]] = (),
    port: int = PORT,
    data: DataIfAny = None,
    variant: str | None = None,
    lang: Language | None = None,
    open: FlagCreatePairsOff[bool] = False,
    max_pixels: int = MAX_PIXELS,
) -> None:
    """Serve the page of `alexnet explain` on this machine: drop a picture on it, paste one, or take
    one with the camera.

    Nobody but programs on this machine can reach it, and pictures stay here. Ctrl-C ends it.

    Args:
        runs: networks to choose from: runs' folders, files of weights, names of published weights
            in the cache. Published weights in the cache and untrained variants are always there.
        port: the port to listen on; 0 takes any free one.
        data: a store: shows for the strongest kernels of the runs which of its training pictures
            they answer most. The first time takes one pass over them.
        variant: which AlexNet the networks are, if a file does not say so.
        lang: the language in which the page opens; the browser's own by default.
        open: open the page in the browser.
        max_pixels: refuse a picture with more pixels, as `alexnet predict` does.
    """
    from alexnet.arguments import check_count
    from alexnet.data.store import Store
    from alexnet.web import server
    from alexnet.web.shown import offers

    check_count("max_pixels", max_pixels)
    studio = server.Studio(offers(runs, variant), Store(data) if data else None, max_pixels)
    with server.listen(port) as listening:
        identifier, offer = next(iter(studio.offers.items()))
        studio.loaded[identifier] = studio.read(offer)  # now: what is wrong with it is said here
        first = studio.loaded[identifier][0]
        for remark in first.remarks:
            say(f"alexnet: {remark}.")
        url = server.address(listening)
        print(url, flush=True)
        say(f"Showing {first.label} first. Open {url} in a browser on this machine; Ctrl-C ends it.")
        if open:
            import webbrowser

            webbrowser.open(url)
        try:
            server.run(server.create_app(studio, lang), listening)
        except KeyboardInterrupt:
            say("Stopped.")
