"""A row of many items: the order of the items is nothing, and one item is itself."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from survlens.core.errors import InvalidValueError
from survlens.encoders.mlp import MLP
from survlens.encoders.pooling import AttentionPooling, MeanPooling, MultipleInstance, Pooling, WorstPooling

WIDTH = 3
POOLINGS = {
    "mean": MeanPooling,
    "attention": lambda: AttentionPooling(WIDTH, hidden=4),
    "worst": lambda: WorstPooling(WIDTH),
}
every_pooling = pytest.mark.parametrize("name", POOLINGS)
few = settings(max_examples=25, deadline=None)


def _encoder(name: str, seed: int = 0) -> MultipleInstance:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MultipleInstance(MLP(2, (6, WIDTH)), POOLINGS[name]()).double().eval()


@st.composite
def bags(draw):
    """Items and counts; some items of a row are equal."""
    count = torch.tensor(draw(st.lists(st.integers(1, 5), min_size=1, max_size=5)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    items = torch.randn((int(count.sum()), 2), generator=generator, dtype=torch.float64)
    if draw(st.booleans()):
        items = items.round()
    return items, count, generator


@every_pooling
@few
@given(case=bags())
def test_the_order_of_items_is_nothing(name, case):
    items, count, generator = case
    encoder = _encoder(name)
    orders = [torch.randperm(len(part), generator=generator) for part in items.split(count.tolist())]
    shuffled = torch.cat([part[order] for part, order in zip(items.split(count.tolist()), orders, strict=True)])
    torch.testing.assert_close(encoder(items, count), encoder(shuffled, count))


@every_pooling
@few
@given(case=bags())
def test_a_batch_of_bags_equals_its_members(name, case):
    items, count, _ = case
    encoder = _encoder(name)
    members = [encoder(part, torch.tensor([len(part)])) for part in items.split(count.tolist())]
    torch.testing.assert_close(encoder(items, count), torch.cat(members))


@every_pooling
@few
@given(case=bags())
def test_a_row_of_one_item_is_the_item(name, case):
    items, _, _ = case
    encoder = _encoder(name)
    torch.testing.assert_close(encoder(items, torch.ones(len(items), dtype=torch.int64)), encoder.encoder(items))
    torch.testing.assert_close(encoder(items), encoder.encoder(items))


@every_pooling
@few
@given(case=bags())
def test_weights_of_a_row_add_up_to_one_and_make_its_embedding(name, case):
    items, count, _ = case
    encoder = _encoder(name)
    weights = encoder.weights(items, count)
    by_row = list(zip(weights.split(count.tolist()), encoder.encoder(items).split(count.tolist()), strict=True))
    torch.testing.assert_close(torch.stack([own.sum() for own, _ in by_row]), torch.ones(len(count)).double())
    torch.testing.assert_close(torch.stack([own @ embedded for own, embedded in by_row]), encoder(items, count))


@every_pooling
def test_many_items_in_parts_are_the_same(name, generator):
    encoder, items = _encoder(name), torch.randn((11, 2), generator=generator, dtype=torch.float64)
    count = torch.tensor([9, 2])
    with torch.no_grad():
        whole = encoder(items, count)
        encoder.items_at_once = 4
        torch.testing.assert_close(encoder(items, count), whole)


def test_attention_is_the_formula(generator):
    pooling = AttentionPooling(WIDTH, hidden=4).double()
    embedding = torch.randn((5, WIDTH), generator=generator, dtype=torch.float64)
    power = []
    for h in embedding:
        content = torch.tanh(pooling.content.weight @ h + pooling.content.bias)
        gate = torch.sigmoid(pooling.gate.weight @ h + pooling.gate.bias)
        power.append((pooling.score.weight[0] @ (content * gate)).exp())
    attention = torch.stack(power) / torch.stack(power).sum()
    torch.testing.assert_close(pooling.weights(embedding, torch.tensor([5])), attention)


def test_attention_to_one_item_grows_without_limit():
    pooling = AttentionPooling(1, hidden=1)
    with torch.no_grad():
        for layer, value in ((pooling.content, 50.0), (pooling.gate, 50.0), (pooling.score, 1000.0)):
            layer.weight.fill_(value)
    weights = pooling.weights(torch.tensor([[1.0], [-1.0], [0.5]]), torch.tensor([2, 1]))
    torch.testing.assert_close(weights, torch.tensor([1.0, 0.0, 1.0]))


def test_only_the_worst_item_is_seen_and_gets_the_gradient(generator):
    pooling = WorstPooling(WIDTH)
    embedding = torch.randn((6, WIDTH), generator=generator).requires_grad_()
    count = torch.tensor([4, 2])
    pooled = pooling(embedding, count)
    score = (embedding @ pooling.score.weight[0]).detach()
    worst = [int(score[:4].argmax()), 4 + int(score[4:].argmax())]
    assert torch.equal(pooled, embedding[worst])
    pooled.sum().backward()
    touched = embedding.grad.abs().sum(dim=1) > 0
    assert touched.nonzero()[:, 0].tolist() == sorted(worst)
    assert pooling.score.weight.grad.abs().sum() > 0


def test_the_score_of_the_worst_learns_to_find_the_item_that_matters(generator):
    """The target of a row is the largest first value among its items: the score must learn to look there."""
    items = torch.randn((200 * 5, 2), generator=generator)
    count = torch.full((200,), 5)
    target = items[:, 0].reshape(200, 5).amax(dim=1)
    pooling = WorstPooling(2)
    with torch.no_grad():
        pooling.score.weight.copy_(torch.tensor([[0.1, 0.5]]))
    optimiser = torch.optim.Adam(pooling.parameters(), lr=0.05)
    for _ in range(100):
        optimiser.zero_grad()
        (pooling(items, count)[:, 0] - target).square().mean().backward()
        optimiser.step()
    chosen = pooling(items, count)[:, 0]
    assert float((chosen == target).float().mean()) > 0.9


def test_wrong_bags_are_refused():
    encoder, items = _encoder("mean"), torch.zeros((3, 2), dtype=torch.float64)
    with pytest.raises(InvalidValueError, match="1 rows without any"):
        encoder(items, torch.tensor([3, 0]))
    with pytest.raises(InvalidValueError, match="add up to the 3 items"):
        encoder(items, torch.tensor([1, 1]))
    with pytest.raises(InvalidValueError, match="as wide as"):
        MultipleInstance(MLP(2, (4,)), AttentionPooling(3))
    with pytest.raises(InvalidValueError, match="items_at_once"):
        MultipleInstance(MLP(2, (4,)), MeanPooling(), items_at_once=0)
    with pytest.raises(InvalidValueError, match="hidden"):
        AttentionPooling(3, hidden=0)
    with pytest.raises(InvalidValueError, match="in_features"):
        WorstPooling(0)


@every_pooling
def test_every_pooling_has_the_two_methods(name):
    assert isinstance(POOLINGS[name](), Pooling)
