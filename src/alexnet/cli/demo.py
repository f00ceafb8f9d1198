"""`alexnet demo`: everything once."""

import json
from pathlib import Path

from alexnet.cli.next_step import command_line, next_step
from alexnet.console import say


def demo(out: Path = Path("demo"), epochs: int | None = None) -> None:
    """Download Fashion-MNIST, train a network on it, test it and write a report. The last line is
    one JSON object.

    Args:
        out: folder for the store, the run and the report; run again, the demo continues where it
            stopped.
        epochs: passes over the pictures; by default those of the recipe laptop.
    """
    from alexnet.demo import demo as run
    from alexnet.demo import ideas

    result = run(out, epochs)
    print(json.dumps(result))
    first, *others = ideas(out)
    say(f"Open {result['report']} in a browser. More to try with this store and run:")
    for words in others:
        say(f"  {command_line(words)}", whole=True)
    next_step(*first)
