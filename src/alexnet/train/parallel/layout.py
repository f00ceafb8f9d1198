"""How a scheme shares the work of a step, seen from one rank.

- data: a rank has the whole network and its share of each batch; gradients are added.
- towers: a rank has one tower, as each of the two GPUs of 2012 had; pairs of ranks share a batch as
  in data.
- hybrid: a rank has all convolutions, for its share of each batch, and its part of the units of the
  fully connected layers, for the whole batch.
"""

from dataclasses import dataclass

import torch

from alexnet.traffic import Scheme
from alexnet.train.parallel.exchange import Group
from alexnet.train.parallel.ranks import Ranks

PAIR = 2  # towers of a network, and ranks of one


@dataclass(frozen=True)
class Layout:
    """One rank's place.

    Attributes:
        share: (number, of how many) of the shares of a batch that go through the convolutions.
        whole_batch: whether the fully connected layers see the batch, not the share.
        cut_convolutions, cut_linear: ranks that have a slice each of these layers; None where
            each has them whole.
        added_convolutions, added_linear: ranks whose gradients of these layers are added; None
            where each rank has its own alone.
        counts: whether this rank's loss counts: of ranks that compute the same, one's does.
    """

    scheme: Scheme
    share: tuple[int, int]
    whole_batch: bool = False
    cut_convolutions: Group | None = None
    cut_linear: Group | None = None
    added_convolutions: Group | None = None
    added_linear: Group | None = None
    counts: bool = True

    @classmethod
    def of(cls, ranks: Ranks, scheme: Scheme, device: torch.device) -> "Layout":
        """That of a rank. All ranks call this."""
        share, everyone = (ranks.rank, ranks.count), Group(None, ranks.rank, ranks.count)
        match scheme:
            case "data":
                return cls(scheme, share, added_convolutions=everyone, added_linear=everyone)
            case "hybrid":
                return cls(scheme, share, True, cut_linear=everyone, added_convolutions=everyone, counts=ranks.first)
            case "towers":
                pair, replicas = _mesh(ranks, device)
                added = replicas if replicas.size > 1 else None
                share = (replicas.index, replicas.size)
                return cls(scheme, share, False, pair, pair, added, added, counts=pair.index == 0)

    def cut(self, name: str) -> Group | None:
        """Ranks that have a slice each of a layer or of one of its parameters."""
        return self.cut_convolutions if name.startswith("conv") else self.cut_linear

    def added(self, name: str) -> Group | None:
        """Ranks whose gradients of a parameter are added."""
        return self.added_convolutions if name.startswith("conv") else self.added_linear


def _mesh(ranks: Ranks, device: torch.device) -> tuple[Group, Group]:
    """Pairs of towers times replicas. The ranks of a pair are neighbours: they exchange more."""
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh(device.type, (ranks.count // PAIR, PAIR), mesh_dim_names=("replicas", "towers"))
    replica, tower = divmod(ranks.rank, PAIR)
    pair = Group(mesh["towers"].get_group(), tower, PAIR)
    return pair, Group(mesh["replicas"].get_group(), replica, ranks.count // PAIR)
