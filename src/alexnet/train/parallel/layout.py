"""How a scheme divides the work of a step among ranks, seen from one of them.

- data: a rank has the whole network and its share of each batch; gradients are summed.
- towers: a rank has one tower, as each of the two GPUs of 2012 had; pairs of ranks share a batch as
  in data.
- hybrid: a rank computes all convolutions for its share of each batch, and its part of the units of
  the fully connected layers for the whole batch.
"""

from dataclasses import dataclass

import torch

from alexnet.traffic import PAIR, Scheme
from alexnet.train.parallel.exchange import Group
from alexnet.train.parallel.ranks import Ranks


@dataclass(frozen=True)
class Layout:
    """What one rank computes.

    Attributes:
        share: (number, parts): the share of a batch that goes through this rank's convolutions.
        whole_batch: whether the fully connected layers see the whole batch instead of the share.
        sharded_convolutions, sharded_linear: the ranks that have one slice each of these layers;
            None if each rank has them whole.
        summed_convolutions, summed_linear: the ranks whose gradients of these layers are summed;
            None if each rank's gradients are its own.
        counts: whether this rank's loss is added to the batch's: of ranks that compute the same
            loss, only one's is.
    """

    share: tuple[int, int]
    whole_batch: bool = False
    sharded_convolutions: Group | None = None
    sharded_linear: Group | None = None
    summed_convolutions: Group | None = None
    summed_linear: Group | None = None
    counts: bool = True

    @classmethod
    def of(cls, ranks: Ranks, scheme: Scheme, device: torch.device) -> "Layout":
        """The layout of a rank. All ranks must call this."""
        share, everyone = (ranks.rank, ranks.count), Group(None, ranks.rank, ranks.count)
        match scheme:
            case "data":
                return cls(share, summed_convolutions=everyone, summed_linear=everyone)
            case "hybrid":
                return cls(share, True, sharded_linear=everyone, summed_convolutions=everyone, counts=ranks.first)
            case "towers":
                pair, replicas = _mesh(ranks, device)
                summed = replicas if replicas.size > 1 else None
                share = (replicas.index, replicas.size)
                return cls(share, False, pair, pair, summed, summed, counts=pair.index == 0)

    def sharded(self, name: str) -> Group | None:
        """The ranks that have one slice each of a layer or parameter; None if it is whole."""
        return self.sharded_convolutions if name.startswith("conv") else self.sharded_linear

    def summed(self, name: str) -> Group | None:
        """The ranks whose gradients of a parameter are summed; None if there is nothing to sum."""
        return self.summed_convolutions if name.startswith("conv") else self.summed_linear


def _mesh(ranks: Ranks, device: torch.device) -> tuple[Group, Group]:
    """Pairs of towers times replicas. The ranks of a pair are neighbours, as they exchange more."""
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh(device.type, (ranks.count // PAIR, PAIR), mesh_dim_names=("replicas", "towers"))
    replica, tower = divmod(ranks.rank, PAIR)
    pair = Group(mesh["towers"].get_group(), tower, PAIR)
    return pair, Group(mesh["replicas"].get_group(), replica, ranks.count // PAIR)
