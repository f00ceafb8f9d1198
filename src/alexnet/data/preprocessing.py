"""From a record to the network's input, without chance: the centre crop or ten
views, the mean subtracted.

A trained network always needs it, so it is stored in the checkpoint. What only training needs is
`augment.Augmentation`. Both end in `kernels.augment`.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from alexnet import kernels
from alexnet.data.image import Resize
from alexnet.data.store import Store
from alexnet.errors import CheckpointError
from alexnet.variants import Variant

Views = Literal[1, 10]


@dataclass(frozen=True)
class Preprocessing:
    """The deterministic steps from a record to the network's input.

    Attributes:
        stored_size: S, side of a record's picture.
        input_size: K, side of the crop.
        resize: how a photo becomes a record.
        bgr: order of the input channels.
        mean: (3, S, S) or (3, 1, 1) float32, RGB in [0, 255], subtracted.
        scale: (3,) float32, RGB, multiplied afterwards.
    """

    stored_size: int
    input_size: int
    resize: Resize
    bgr: bool
    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, variant: Variant, store: Store) -> "Preprocessing":
        """The variant's rule with the store's numbers."""
        statistics = store.statistics
        mean = torch.from_numpy(store.mean_image)
        if variant.pixels != "mean-image":
            mean = torch.from_numpy(statistics.mean_colour).float().view(3, 1, 1)
        scale = torch.ones(3)
        if variant.pixels == "unit":
            # A grey data set has the same deviation in all channels; a constant one has none.
            scale = 1 / torch.from_numpy(statistics.deviation).float().clamp_min(1.0)
        return cls(store.size, variant.input_size, store.manifest["resize"], variant.channel_order == "BGR", mean, scale)

    def check_fits(self, store: Store) -> None:
        """Refuse a store whose pictures are not those that the network was trained with.

        Raises:
            CheckpointError: they are of another size, or were made square in another way.
        """
        for what, option, has, needs in (
            ("stored size", "--size", store.size, self.stored_size),
            ("resize rule", "--resize", store.manifest["resize"], self.resize),
        ):
            if has != needs:
                raise CheckpointError(
                    f"{store.address} has {what} {has}, but the network was trained with {needs}: "
                    f"prepare it with {option} {needs}."
                )

    def to(self, device: torch.device) -> "Preprocessing":
        """The same with mean and scale on a device."""
        return Preprocessing(
            self.stored_size, self.input_size, self.resize, self.bgr, self.mean.to(device), self.scale.to(device)
        )

    def views(self, count: Views) -> list[tuple[int, int, bool]]:
        """(top, left, mirrored) of each view: the centre, or the ten of 2012 in that code's order:
        top-left, top-right, centre, bottom-left, bottom-right, then the same mirrored."""
        end = self.stored_size - self.input_size
        centre = (end // 2, end // 2)
        if count == 1:
            return [(*centre, False)]
        corners = [(0, 0), (0, end), centre, (end, 0), (end, end)]
        return [(*corner, mirrored) for mirrored in (False, True) for corner in corners]

    def view(self, records: Tensor, top: int, left: int, mirrored: bool) -> Tensor:
        """The same crop of every record: (N, bytes) uint8 to (N, 3, K, K) float32."""
        n, device = len(records), records.device
        return self.apply(
            records,
            torch.full((n,), top, device=device),
            torch.full((n,), left, device=device),
            torch.full((n,), mirrored, device=device),
            torch.zeros(n, 3, device=device),
        )

    def apply(
        self,
        records: Tensor,
        top: Tensor,
        left: Tensor,
        mirror: Tensor,
        colour: Tensor,
        index: Tensor | None = None,
        padding: tuple[int, int] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """`kernels.augment` with this mean, scale, size and channel order."""
        return kernels.augment(
            records, top, left, mirror, colour, self.mean, self.scale, self.input_size, self.bgr, index, padding, dtype
        )
