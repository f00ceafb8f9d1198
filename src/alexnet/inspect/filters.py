"""The first layer's filters as pictures (figure 3 of the paper).

In 2012 the first GPU's 48 kernels turned out grey and oriented, the second's coloured: the towers are kept apart here.
"""

import numpy as np
from numpy.typing import NDArray

from alexnet.model import AlexNet


def first_layer(model: AlexNet, grey: bool = False) -> NDArray[np.float32]:
    """conv1's kernels, each stretched to its own full range.

    Args:
        model: any variant.
        grey: show the sum over the channels, which is all that grey pictures see of a kernel; its colours are those of the
            random start, which no gradient has touched.

    Returns:
        (towers, kernels per tower, 11, 11, 3) float32 in [0, 1], RGB.
    """
    weight = model.get_parameter("conv1.weight").detach().cpu().float().numpy()  # (kernels, 3, 11, 11)
    if model.variant.channel_order == "BGR":
        weight = weight[:, ::-1]
    if grey:
        weight = weight.sum(axis=1, keepdims=True).repeat(3, axis=1)
    low, high = weight.min(axis=(1, 2, 3), keepdims=True), weight.max(axis=(1, 2, 3), keepdims=True)
    kernels = ((weight - low) / np.maximum(high - low, 1e-12)).transpose(0, 2, 3, 1)
    towers = model.variant.towers
    return kernels.reshape(towers, -1, *kernels.shape[1:])
