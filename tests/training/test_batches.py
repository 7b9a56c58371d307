"""Batches hold every row once, and events evenly."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from survlens.core.errors import InvalidValueError
from survlens.training.batches import event_balanced_batches, shuffled_batches


@st.composite
def deals(draw):
    event = torch.tensor(draw(st.lists(st.integers(0, 2), min_size=1, max_size=120)))
    return event, draw(st.integers(1, 20)), torch.Generator().manual_seed(draw(st.integers(0, 9)))


@settings(max_examples=50, deadline=None)
@given(deal=deals())
def test_every_row_comes_once_and_events_are_even(deal):
    event, batch, generator = deal
    batches = event_balanced_batches(event, batch, generator=generator)
    assert torch.equal(torch.cat(batches).sort().values, torch.arange(len(event)))
    count, total = len(batches), int((event > 0).sum())
    assert count == -(-len(event) // batch)
    for rows in batches:
        assert len(event) // count <= len(rows) <= min(batch, -(-len(event) // count))
        assert total // count <= int((event[rows] > 0).sum()) <= -(-total // count)


@settings(max_examples=50, deadline=None)
@given(deal=deals())
def test_full_batches_only_when_the_last_is_dropped(deal):
    event, batch, generator = deal
    if len(event) < batch:
        with pytest.raises(InvalidValueError, match="at least one batch"):
            event_balanced_batches(event, batch, generator=generator, drop_last=True)
        return
    batches = event_balanced_batches(event, batch, generator=generator, drop_last=True)
    shares = [int((event[rows] > 0).sum()) for rows in batches]
    assert len(batches) == len(event) // batch
    assert all(len(rows) == batch for rows in batches)
    assert len(torch.cat(batches).unique()) == len(batches) * batch
    assert max(shares) - min(shares) <= 1
    assert abs(sum(shares) - float((event > 0).float().mean()) * len(batches) * batch) <= 1
    plain = shuffled_batches(len(event), batch, generator=generator, drop_last=True)
    assert all(len(rows) == batch for rows in plain)


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 100), batch=st.integers(1, 20))
def test_shuffled_batches_cover_every_row_in_even_sizes(rows, batch):
    batches = shuffled_batches(rows, batch, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.cat(batches).sort().values, torch.arange(rows))
    sizes = [len(part) for part in batches]
    assert max(sizes) <= batch
    assert max(sizes) - min(sizes) <= 1


def test_no_batch_of_16_is_without_an_event_at_80_percent_censoring():
    event = (torch.arange(1000) % 5 == 0).long()
    plain = balanced = 0
    for seed in range(50):
        generator = torch.Generator().manual_seed(seed)
        plain += sum(not event[rows].any() for rows in shuffled_batches(1000, 16, generator=generator))
        balanced += sum(not event[rows].any() for rows in event_balanced_batches(event, 16, generator=generator))
    assert plain > 40  # 2.8 % of 3,150
    assert balanced == 0


def test_the_same_generator_gives_the_same_batches():
    event = torch.arange(50) % 3

    def deal(seed: int) -> torch.Tensor:
        return torch.cat(event_balanced_batches(event, 8, generator=torch.Generator().manual_seed(seed)))

    assert torch.equal(deal(1), deal(1))
    assert not torch.equal(deal(1), deal(2))


def test_every_row_meets_every_other():
    event = torch.tensor([1] * 4 + [0] * 8)
    generator = torch.Generator().manual_seed(0)
    met = torch.zeros(12, 12, dtype=torch.bool)
    first = set()
    for _ in range(200):
        batches = event_balanced_batches(event, 4, generator=generator)
        first.add(int(batches[0][0]))
        for rows in batches:
            met[rows[:, None], rows] = True
    off_events = ~(torch.eye(12, dtype=torch.bool) | ((event > 0)[:, None] & (event > 0)))
    assert met[off_events].all()
    assert first == {0, 1, 2, 3}


def test_a_batch_of_none_is_refused():
    with pytest.raises(InvalidValueError, match="`batch` must be >= 1; got 0"):
        shuffled_batches(5, 0, generator=torch.Generator())
