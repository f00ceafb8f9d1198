"""Start conv1's kernels from the principal components of picture patches.

Neighbouring pixels are nearly equal, so random kernels answer to much the same thing: the slow
changes of light across a patch, which make up most of its variance. Gradient descent must first
pull the kernels apart. Whitening does that before the first step: the kernels are the principal
components of the patches of the training pictures, scaled so that each answers with the same
deviation, and each with both signs, as the ReLU that follows cuts one of them off (as in the
CIFAR-10 speed records: Page 2019, Jordan 2024). The kernels are trained like any others afterwards.
`docs/log.md` says what it is worth.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.arithmetic import Conv
from alexnet.data.preprocessing import Preprocessing
from alexnet.data.store import Split
from alexnet.errors import RecipeError
from alexnet.model import AlexNet

#: 128 pictures of 224 pixels have 373,000 patches and take 3.4 s on a core; of 64
#: pixels, 25,000 in 0.2 s.
PICTURES, AT_ONCE = 128, 16
#: Added to each variance, relative to the largest one, so that what hardly occurs is not blown up.
LEAST = 1e-3
#: Deviation of the answers; He initialisation gives 1.4 for white noise.
DEVIATION = 1.2


@torch.no_grad()
def whiten(model: AlexNet, preprocessing: Preprocessing, split: Split) -> None:
    """Replace conv1's kernels; the biases stay.

    Args:
        model: on the CPU.
        split: pictures spread evenly over it are looked at, the centre crop of each.

    Raises:
        RecipeError: conv1 has more kernels than there are directions, twice.
    """
    conv1 = model.ops[0]
    assert isinstance(conv1, Conv)
    weight = model.get_parameter("conv1.weight")  # (K, 3, F, F)
    directions = weight[0].numel()
    if len(weight) > 2 * directions:
        raise RecipeError(f"whiten gives conv1 at most {2 * directions} kernels, not {len(weight)}: lower width or kernels.")
    chosen = np.linspace(0, len(split) - 1, min(len(split), PICTURES)).astype(int)
    second_moment = torch.zeros(directions, directions, dtype=torch.float64)
    for records in torch.from_numpy(split.take(chosen)).split(AT_ONCE):
        images = preprocessing.view(records, *preprocessing.views(1)[0])
        patches = F.unfold(images, conv1.size, stride=conv1.stride).transpose(1, 2).reshape(-1, directions).double()
        second_moment += patches.T @ patches / (len(patches) * len(chosen) / len(records))
    weight.copy_(components(second_moment, len(weight)).view_as(weight))


def components(second_moment: Tensor, count: int) -> Tensor:
    """The first directions of (D, D) data, scaled to `DEVIATION` along each, then the
    same negated: (count, D).
    """
    variances, axes = torch.linalg.eigh(second_moment)  # rising
    half = (count + 1) // 2
    scaled = DEVIATION * axes / (variances + LEAST * variances[-1]).sqrt()
    first = scaled.T.flip(0)[:half]
    return torch.cat([first, -first])[:count]
