"""Fusions: what a row lacks has no say, and the rule that stands in for it is the one asked for."""

import pytest
import torch

from survlens.core.errors import InvalidValueError
from survlens.models.fusion import Concatenation, GatedFusion, Missing

NAMES, WIDTHS = ("image", "table", "mri"), (2, 3, 4)
FUSIONS = {
    "learned": lambda **extra: Concatenation(NAMES, WIDTHS, **extra),
    "zero": lambda **extra: Concatenation(NAMES, WIDTHS, missing=Missing.ZERO, **extra),
    "gated": lambda **extra: GatedFusion(NAMES, WIDTHS, 5, **extra),
}
every_fusion = pytest.mark.parametrize("name", FUSIONS)


@pytest.fixture
def embeddings(generator):
    return {name: torch.randn((6, width), generator=generator) for name, width in zip(NAMES, WIDTHS, strict=True)}


@pytest.fixture
def present():
    rows = torch.tensor([[1, 1, 1], [0, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 1], [1, 0, 0]], dtype=torch.bool)
    return {name: rows[:, place] for place, name in enumerate(NAMES)}


def _fusion(name, **extra):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        fusion = FUSIONS[name](**extra)
        for vector in getattr(fusion, "stand_in", {}).values():
            torch.nn.init.normal_(vector)
    return fusion.eval()


@every_fusion
def test_the_joint_embedding_has_the_promised_width(name, embeddings, present):
    fusion = _fusion(name)
    assert fusion(embeddings).shape == (6, fusion.out_features)
    assert fusion(embeddings, present).shape == (6, fusion.out_features)


@every_fusion
def test_saying_that_nothing_is_missing_changes_nothing(name, embeddings):
    fusion, everywhere = _fusion(name), {name: torch.ones(6, dtype=torch.bool) for name in NAMES}
    assert torch.equal(fusion(embeddings), fusion(embeddings, everywhere))


@every_fusion
@pytest.mark.parametrize("garbage", [1e30, float("nan"), float("inf")])
def test_what_is_missing_has_no_say(name, garbage, embeddings, present):
    fusion = _fusion(name)
    spoilt = {}
    for key, value in embeddings.items():
        spoilt[key] = torch.where(present[key][:, None], value, torch.tensor(garbage)).requires_grad_()
    joint = fusion(spoilt, present)
    assert torch.equal(joint, fusion(embeddings, present))
    joint.square().sum().backward()
    for key, value in spoilt.items():
        touched = value.grad.abs().sum(dim=1) > 0
        assert torch.equal(touched, present[key])
    assert all(torch.isfinite(weight.grad).all() for weight in fusion.parameters() if weight.grad is not None)


@every_fusion
def test_a_batch_equals_its_members(name, embeddings, present):
    fusion = _fusion(name)
    members = [
        fusion({key: value[[row]] for key, value in embeddings.items()}, {k: v[[row]] for k, v in present.items()})
        for row in range(6)
    ]
    torch.testing.assert_close(fusion(embeddings, present), torch.cat(members))


@every_fusion
def test_a_row_of_nothing_is_refused_by_number(name, embeddings, present):
    present = {key: value.clone() for key, value in present.items()}
    for value in present.values():
        value[4] = False
    with pytest.raises(InvalidValueError, match=r"1 of 6 rows with none \(rows 4\)"):
        _fusion(name)(embeddings, present)


def test_plain_concatenation_names_what_is_missing(embeddings, present):
    fusion = Concatenation(NAMES)
    assert torch.equal(fusion(embeddings), torch.cat(list(embeddings.values()), dim=1))
    with pytest.raises(InvalidValueError, match=r"must have image in every row.*got 2 of 6 rows without.*widths"):
        fusion(embeddings, present)


def test_a_learned_vector_stands_in_and_learns(embeddings, present):
    fusion = _fusion("learned")
    joint = fusion(embeddings, present)
    torch.testing.assert_close(joint[1, :2], fusion.stand_in["image"])
    joint.sum().backward()
    assert fusion.stand_in["mri"].grad.tolist() == [2.0] * 4


def test_zeros_come_with_an_indicator(embeddings, present):
    joint = _fusion("zero")(embeddings, present)
    assert joint[1, :2].tolist() == [0.0, 0.0]
    assert torch.equal(joint[:, -3:].bool(), torch.stack(list(present.values()), dim=1))


def test_gates_are_zero_where_missing_and_leave_room_for_the_empty_place(embeddings, present):
    fusion = _fusion("gated")
    gates = fusion.gates(embeddings, present)
    assert (gates.sum(dim=1) < 1).all()
    assert torch.equal(gates > 0, torch.stack(list(present.values()), dim=1))
    with torch.no_grad():
        fusion.empty_place.fill_(-torch.inf)
    torch.testing.assert_close(fusion.gates(embeddings, present).sum(dim=1), torch.ones(6))


def test_modalities_weigh_alike_alone_and_together_where_the_empty_place_is_large(embeddings, present):
    """exp(logits) / exp(c) is small beside 1, so no gate depends on who else is there."""
    fusion = _fusion("gated")
    with torch.no_grad():
        fusion.empty_place.fill_(20.0)
        for vote in fusion.votes:
            vote.weight.zero_()
    whole, some = fusion.gates(embeddings), fusion.gates(embeddings, present)
    shown = torch.stack(list(present.values()), dim=1)
    torch.testing.assert_close(some[shown], whole[shown], rtol=1e-5, atol=0)


def test_the_gated_mean_is_the_formula(embeddings):
    fusion = _fusion("gated")
    for row in range(6):
        hidden = [torch.tanh(layer(embeddings[n][row])) for n, layer in zip(NAMES, fusion.projections, strict=True)]
        logits = fusion.preference + sum(vote(h) for vote, h in zip(fusion.votes, hidden, strict=True))
        weight = logits.exp() / (logits.exp().sum() + fusion.empty_place.exp())
        expected = sum(w * h for w, h in zip(weight, hidden, strict=True))
        torch.testing.assert_close(fusion(embeddings)[row], expected)


@every_fusion
def test_modality_dropout_is_for_training_only_and_leaves_something(name, embeddings, present):
    fusion = _fusion(name, modality_dropout=0.7)
    plain = _fusion(name)
    assert torch.equal(fusion(embeddings, present), plain(embeddings, present))
    fusion.train()
    torch.manual_seed(0)
    first, second = fusion(embeddings, present), fusion(embeddings, present)
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(fusion(embeddings, present), first)
    assert torch.equal(first[5], plain(embeddings, present)[5])  # a row's only modality stays


def test_modality_dropout_drops_its_share():
    fusion = Concatenation(("a", "b"), (1, 1), missing=Missing.ZERO, modality_dropout=0.3).train()
    torch.manual_seed(1)
    shown = fusion({"a": torch.ones(20000, 1), "b": torch.ones(20000, 1)})[:, 2:]
    assert float((shown.sum(dim=1) == 0).float().mean()) == 0.0
    assert float((shown[:, 0] == 0).float().mean()) == pytest.approx(0.3 * 0.7, abs=0.01)


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: Concatenation(NAMES, (1, 2)), "`widths`"),
        (lambda: Concatenation(NAMES, modality_dropout=0.1), "needs `widths`"),
        (lambda: Concatenation(NAMES, WIDTHS, modality_dropout=1.0), "modality_dropout"),
        (lambda: GatedFusion(NAMES, (1, 2, 0), 4), "`widths`"),
        (lambda: GatedFusion(NAMES, WIDTHS, 0), "out_features"),
    ],
)
def test_wrong_settings_are_refused(build, match):
    with pytest.raises(InvalidValueError, match=match):
        build()
