"""The operations that AlexNet needs and that frameworks lack or do slowly.

`reference.py` is the executable specification and the CPU path. A GPU kernel is one more file whose functions have the same
signatures; callers import from here, so that the choice between them is made in one place.
"""

from alexnet.kernels.reference import augment, lrn, max_pool, spatial_norm, yuv_to_rgb

__all__ = ["augment", "lrn", "max_pool", "spatial_norm", "yuv_to_rgb"]
