"""The augmentation kernel against the reference, which test_reference.py holds to the formula."""

from typing import Any

import numpy as np
import pytest
import torch
from precision import check, poisoned

from alexnet import kernels
from alexnet.kernels import reference


def arguments(records: int, side: int, size: int, mean_image: bool) -> dict[str, Any]:
    """Random pictures, and a batch of five crops of them, one picture twice."""
    rng = np.random.default_rng(records + side + size)
    room = side - size
    arrays = {
        "records": rng.integers(0, 256, (records, side * side * 3 // 2), dtype=np.uint8),
        "top": np.array([0, room, room // 2, 1, 0]),
        "left": np.array([room, 0, 1, room // 2, 0]),
        "mirror": np.array([True, False, True, False, False]),
        "colour": rng.normal(0, 20, (5, 3)).astype(np.float32),
        "mean": rng.uniform(0, 255, (3, side, side) if mean_image else (3, 1, 1)).astype(np.float32),
        "scale": np.array([1.0, 0.5, 2.0], np.float32),
        "index": np.array([records - 1, 0, 1, 0, 2]),
    }
    return {**{name: torch.from_numpy(array) for name, array in arrays.items()}, "size": size}


def compare(values: dict[str, Any], device: torch.device, **options: Any) -> None:
    from alexnet.kernels.gpu.augment import augment

    values = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in values.items()}
    expected = reference.augment(**{**values, **options, "dtype": torch.float32})
    with poisoned():
        found = augment(**values, **options)
    assert found.is_contiguous(memory_format=torch.channels_last)
    check(found, expected.double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("padding", [None, (1, 2), (0, 3), (0, 0), (2, 2)])
@pytest.mark.parametrize(("mean_image", "bgr"), [(True, False), (False, True)])
def test_kernel(padding: tuple[int, int] | None, mean_image: bool, bgr: bool, dtype: torch.dtype, device: torch.device) -> None:
    compare(arguments(3, 30, 23, mean_image), device, padding=padding, bgr=bgr, dtype=dtype)


def test_records_in_order(device: torch.device) -> None:
    values = arguments(5, 24, 13, True)
    del values["index"]
    compare(values, device, bgr=False)


@pytest.mark.parametrize("padding", [None, (1, 2)])
def test_kernel_at_full_size(padding: tuple[int, int] | None, gpu: torch.device) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        compare(arguments(9, 256, 224, True), gpu, padding=padding, bgr=False, dtype=dtype)


def test_blocks_of_the_reference() -> None:
    values = arguments(3, 30, 23, True)
    pictures = reference.augment(**values, bgr=True)
    blocks = reference.augment(**values, bgr=True, padding=(1, 2), dtype=torch.bfloat16)
    assert torch.equal(blocks, kernels.picture_blocks(pictures, (1, 2)).bfloat16())
