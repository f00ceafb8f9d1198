"""`alexnet bench`: measure the speed of this machine."""

import json
from typing import Literal

from alexnet.cli.next_step import next_step
from alexnet.cli.tables import print_table
from alexnet.errors import UsageError

MOST_PICTURES = 1 << 20  # in a batch


def bench(
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    batch: int | None = None,
    variant: str = "paper",
    peers: bool = False,
    compile: bool = True,
) -> None:
    """Time training, data loading and testing on this machine. The last line is one JSON object.

    Args:
        device: where to compute; auto takes a GPU if there is one.
        batch: pictures in a batch; by default 128 on a GPU and 32 on a CPU.
        variant: paper, code-2012, caffe, caffenet, owt or torchvision.
        peers: also time a straightforward PyTorch version and torchvision's AlexNet, uncompiled and
            compiled.
        compile: compile the network as training does; takes a minute.
    """
    from alexnet.bench import bench as run
    from alexnet.bench import table
    from alexnet.devices import pick_device
    from alexnet.variants import get_variant

    where = pick_device(device)
    batch = (32 if where.type == "cpu" else 128) if batch is None else batch
    if batch < 1:
        raise UsageError(f"batch (={batch}) must be at least 1.")
    if batch > MOST_PICTURES:
        raise UsageError(f"batch (={batch}) must be at most {MOST_PICTURES}.")
    rows, result = run(get_variant(variant), where, batch, peers, compile)
    header, *lines = table(rows)
    print_table(header, lines)
    print(json.dumps(result))
    next_step(*(["demo"] if peers else ["bench", "--variant", variant, "--peers"]))
