"""(seed, epoch, step) decides the batch, and nothing else does."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alexnet.data.loader import Batch, Loader, block_shuffle, in_order
from alexnet.data.store import Split, Store


def same(first: Batch, second: Batch) -> bool:
    return torch.equal(first.records, second.records) and torch.equal(first.labels, second.labels)


def tiny(tmp_path_factory: pytest.TempPathFactory, count: int) -> Split:
    """Record i holds i in every byte; its label is i too."""
    numbers = np.arange(count)
    records = np.repeat(numbers.astype(np.uint8)[:, None], 6, axis=1)
    return Split("train", records, numbers.astype(np.int32), tmp_path_factory.getbasetemp())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(2, 90), size=st.integers(1, 40), seed=st.integers(0, 2**31), epoch=st.integers(0, 50), data=st.data())
def test_any_batch_from_anywhere(
    tmp_path_factory: pytest.TempPathFactory, count: int, size: int, seed: int, epoch: int, data: st.DataObject
) -> None:
    """A fresh loader asked for one batch gives what another gives after iterating from any
    start, with any workers.
    """
    split = tiny(tmp_path_factory, count)
    loader = Loader(split, size, seed)
    step = data.draw(st.integers(0, loader.steps_per_epoch - 1))
    start = data.draw(st.integers(0, step))
    workers = data.draw(st.integers(1, 4))
    iterated = list(Loader(split, size, seed, workers).batches(epoch, start))
    assert len(iterated) == loader.steps_per_epoch - start
    assert same(loader.batch(epoch, step), iterated[step - start])


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(2, 90), size=st.integers(1, 40), seed=st.integers(0, 2**31))
def test_an_epoch_repeats_nothing(tmp_path_factory: pytest.TempPathFactory, count: int, size: int, seed: int) -> None:
    loader = Loader(tiny(tmp_path_factory, count), size, seed)
    seen = torch.cat([batch.labels for batch in loader.batches(0)])
    assert len(seen) == len(seen.unique()) == count // loader.batch_size * loader.batch_size
    for batch in loader.batches(1):
        assert torch.equal(batch.records[:, 0].long(), batch.labels)  # a record keeps its label


def test_order_depends_on_seed_and_epoch(tmp_path_factory: pytest.TempPathFactory) -> None:
    split = tiny(tmp_path_factory, 64)
    orders = {tuple(Loader(split, 64, seed).indices(epoch, 0)) for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4


def test_a_small_split_gives_small_batches(store: Store) -> None:
    loader = Loader(store.train, 1000, 0)
    assert (loader.batch_size, loader.steps_per_epoch) == (60, 1)


def test_steps_out_of_range(store: Store) -> None:
    with pytest.raises(IndexError, match=r"step \(=6\) must be in \[0, 6\)"):
        Loader(store.train, 10, 0).batch(0, 6)


def test_in_order(store: Store) -> None:
    batches = list(in_order(store.held_out, 7))
    assert [len(batch.labels) for batch in batches] == [7, 7, 4]
    assert np.array_equal(torch.cat([batch.records for batch in batches]).numpy(), store.held_out.records)
    assert np.array_equal(torch.cat([batch.labels for batch in batches]).numpy(), store.held_out.labels)


# --- block shuffle --------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(blocks=st.lists(st.integers(1, 20), min_size=1, max_size=30), count=st.integers(1, 40), seed=st.integers(0, 2**31))
def test_block_shuffle(blocks: list[int], count: int, seed: int) -> None:
    """Every record once; at any place of the order, of `count` blocks only, and of those all."""
    order = block_shuffle(blocks, count, np.random.default_rng(seed))
    assert np.array_equal(np.sort(order), np.arange(sum(blocks)))
    block_of = np.repeat(np.arange(len(blocks)), blocks)[order]
    names, first = np.unique(block_of, return_index=True)
    by_first = names[np.argsort(first)]
    for start in range(0, len(blocks), count):
        together = by_first[start : start + count]
        where = np.flatnonzero(np.isin(block_of, together))
        assert len(where) == where[-1] - where[0] + 1 == sum(blocks[block] for block in together)


def test_block_shuffle_without_records() -> None:
    """As where none of a block's files could be used."""
    for count in (1, 2, 9):
        assert np.array_equal(np.sort(block_shuffle((0, 5, 0, 3, 0), count, np.random.default_rng(0))), np.arange(8))


def test_the_order_of_a_block_shuffle_is_that_of_seed_and_epoch(store: Store) -> None:
    split = replace(store.train, blocks=(20, 20, 20))
    loader = Loader(split, 10, 0, shuffle_blocks=1)
    orders = [np.concatenate([loader.indices(epoch, step) for step in range(6)]) for epoch in (0, 1, 0)]
    assert np.array_equal(orders[0], orders[2]) and not np.array_equal(orders[0], orders[1])
    assert not np.array_equal(np.sort(orders[0][:20]), orders[0][:20])
    parts = [loader.like(share=(number, 2)).indices(0, 3) for number in (0, 1)]
    assert np.array_equal(np.concatenate(parts), loader.indices(0, 3))


def test_the_order_of_a_block_shuffle_stays_in_later_versions(store: Store) -> None:
    """Or a run that is resumed would repeat pictures and skip others."""
    loader = Loader(replace(store.train, blocks=(25, 25, 10)), 10, 0, shuffle_blocks=2)
    assert loader.indices(3, 0).tolist() == [47, 45, 30, 32, 11, 0, 13, 17, 38, 25]
