"""Contributions of groups: sums of their parts, by either route, whatever else is explained."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from contracts.head_rows import HEADS, WIDTH, example, fitted
from survlens.core.errors import InvalidValueError
from survlens.core.targets import incidence_of, restricted_mean, survival
from survlens.explain.expected import GradSHAP
from survlens.explain.groups import Group, GroupedContributions, column_groups, modality_groups, region_groups
from survlens.explain.path_rules.paths import GaussLegendre
from survlens.explain.references import References
from survlens.models.survival_model import SurvivalModel

TIMES = torch.tensor([3.0, 5.5, 20.2, 37.9], dtype=torch.float64)
LABELS = torch.tensor([[0, 1], [1, 1]])


def rows(count: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "image": torch.randn((count, 2, 2, 2), generator=generator, dtype=torch.float64),
        "table": torch.randn((count, 3), generator=generator, dtype=torch.float64),
    }


def model(head: str = "DeepHit network") -> SurvivalModel:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        image = nn.Sequential(nn.Flatten(), nn.Linear(8, 2), nn.Tanh())
        table = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, WIDTH - 2))
    return SurvivalModel({"image": image, "table": table}, fitted(HEADS[head], example())).double()


class Plain(nn.Module):
    """The same model under another name, whose encoders nobody knows."""

    def __init__(self, model: SurvivalModel):
        super().__init__()
        self.model, self.head, self.modalities = model, model.head, model.modalities

    def embed(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.model.embed(inputs)


REFERENCES = References(rows(3, 7), "three rows", drawn=True)
PARTS = (
    *column_groups("table", {"one": [0], "two": [1], "three": [2]}, 3),
    *region_groups("image", LABELS, {0: "corner", 1: "rest"}),
)
heads = pytest.mark.parametrize("head", ["CoxPH network", "DeepHit network", "LogisticHazard", "CoxTime Breslow"])


@heads
def test_a_group_is_the_sum_of_its_parts(head: str) -> None:
    settings = {"nodes": 16, "most_nodes": 16}
    parts = GroupedContributions(PARTS, REFERENCES, **settings)(model(head), rows(4, 3), TIMES)["groups"]
    whole = GroupedContributions(modality_groups(("table", "image")), REFERENCES, **settings)(
        model(head), rows(4, 3), TIMES
    )["groups"]
    sums = torch.stack([parts.values[:, :3].sum(1), parts.values[:, 3:].sum(1)], dim=1)
    assert torch.allclose(whole.values, sums, rtol=1e-9, atol=1e-13)
    assert whole.coords["group"].tolist() == ["table", "image"]


@pytest.mark.parametrize("target", [survival, restricted_mean(30.0), incidence_of(1)], ids=lambda each: each.name)
def test_groups_equal_sums_of_features_and_add_up(target) -> None:  # noqa: ANN001
    explained = GroupedContributions(PARTS, REFERENCES, tolerance=1e-10)(model(), rows(4, 3), TIMES, target)["groups"]
    by_feature = GradSHAP(REFERENCES, GaussLegendre(32))(model(), rows(4, 3), TIMES, target)
    image = by_feature["image"].values.sum(1)
    regions = torch.stack([image[:, LABELS == number].sum(1) for number in (0, 1)], dim=1)
    expected = torch.cat([by_feature["table"].values, regions], dim=1)
    assert torch.allclose(explained.values, expected, rtol=1e-8, atol=1e-10)
    assert explained.additive
    assert explained.completeness_gap is not None
    assert float(explained.completeness_gap.abs().max()) < 1e-9
    assert explained.quadrature_error is not None
    assert bool((explained.quadrature_error < 1e-6).all())


@heads
def test_every_route_gives_the_same(head: str) -> None:
    explainer = GroupedContributions(PARTS, REFERENCES, nodes=8, most_nodes=8)
    expected = explainer(model(head), rows(2, 3), TIMES)["groups"].values
    found = explainer(Plain(model(head)), rows(2, 3), TIMES)["groups"].values
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-13)
    little = GroupedContributions(PARTS, REFERENCES, nodes=8, most_nodes=8, memory=1)
    assert torch.allclose(little(model(head), rows(2, 3), TIMES)["groups"].values, expected, rtol=1e-9, atol=1e-13)
    few = GroupedContributions(PARTS[:1], REFERENCES, nodes=8, most_nodes=8)(model(head), rows(2, 3), TIMES)["groups"]
    assert torch.allclose(few.values[:, 0], expected[:, 0], rtol=1e-9, atol=1e-13)
    assert not few.additive
    assert few.completeness_gap is None


def test_sampling_error_is_the_standard_error_over_references() -> None:
    settings = {"nodes": 8, "most_nodes": 8}
    whole = GroupedContributions(PARTS, REFERENCES, **settings)(model(), rows(2, 3), TIMES)["groups"]
    each = [
        GroupedContributions(
            PARTS, References({name: tensor[[row]] for name, tensor in REFERENCES.inputs.items()}, "one"), **settings
        )(model(), rows(2, 3), TIMES)["groups"]
        for row in range(3)
    ]
    stacked = torch.stack([one.values for one in each])
    assert torch.allclose(whole.values, stacked.mean(0), rtol=1e-9, atol=1e-14)
    assert whole.sampling_error is not None
    assert torch.allclose(whole.sampling_error, stacked.std(0) / 3**0.5, rtol=1e-7, atol=1e-14)
    assert each[0].sampling_error is None


def test_masks_may_differ_between_rows() -> None:
    inputs = rows(2, 3)
    mask = torch.stack([LABELS == 0, LABELS == 1])[:, None]
    groups = (Group("chosen", "image", mask),)
    found = GroupedContributions(groups, REFERENCES, nodes=8, most_nodes=8)(model(), inputs, TIMES)["groups"].values
    parts = GroupedContributions(PARTS, REFERENCES, nodes=8, most_nodes=8)(model(), inputs, TIMES)["groups"].values
    assert torch.allclose(found[:, 0], torch.stack([parts[0, 3], parts[1, 4]]), rtol=1e-9, atol=1e-13)


def test_wrong_groups_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="groups"):
        GroupedContributions((Group("a", "table"), Group("a", "image")), REFERENCES)
    with pytest.raises(InvalidValueError, match="groups"):
        GroupedContributions((Group("a", "sound"),), REFERENCES)(model(), rows(2, 3), TIMES)
    with pytest.raises(InvalidValueError, match="mask"):
        GroupedContributions((Group("a", "table", torch.ones(7, dtype=torch.bool)),), REFERENCES)(
            model(), rows(2, 3), TIMES
        )
    with pytest.raises(InvalidValueError, match="columns"):
        column_groups("table", {"a": [3]}, 3)
    with pytest.raises(InvalidValueError, match="nodes"):
        GroupedContributions(PARTS, REFERENCES, nodes=1)
