"""What every score of an attribution means, and how such scores stand in a file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from survlens.core.score import Category, Direction, Score


@dataclass(frozen=True, slots=True)
class AttributionDefinition:
    """What a score of an attribution is.

    Attributes:
        label: What it is called in a table.
        meaning: The definition in a plain sentence.
        formula: The definition in symbols: phi contributions, F the target, x the instance, x_A the instance with the
            features A replaced by the filling.
        direction: Which way is better.
        category: The question it answers.
        paper: Where it was proposed.
    """

    label: str
    meaning: str
    formula: str
    direction: Direction
    category: Category
    paper: str


_FAITHFULNESS, _ROBUSTNESS = Category.FAITHFULNESS, Category.ROBUSTNESS
_LOCALISATION, _RANDOMISATION = Category.LOCALISATION, Category.RANDOMISATION
_COMPLEXITY, _AGREEMENT = Category.COMPLEXITY, Category.AGREEMENT
_HIGHER, _LOWER, _NONE = Direction.HIGHER, Direction.LOWER, Direction.NONE

ATTRIBUTION_DEFINITIONS: Mapping[str, AttributionDefinition] = MappingProxyType(
    {
        "deletion_area": AttributionDefinition(
            "Deletion against random",
            "How much faster the prediction moves when features are removed in the order of the explanation than in "
            "random order; 0 is no better than chance.",
            "integral over the share q of |F(x) - F(x_A(q))| - mean over random orders of the same",
            *(_HIGHER, _FAITHFULNESS, "Samek et al. 2017; Petsiuk et al. 2018"),
        ),
        "insertion_area": AttributionDefinition(
            "Insertion against random",
            "How much faster the prediction returns when features are put back in the order of the explanation than "
            "in random order; 0 is no better than chance.",
            "mean over random orders of integral over the share q of |F(x) - F(x_A(q))| - the same for the explanation",
            *(_HIGHER, _FAITHFULNESS, "Petsiuk et al. 2018"),
        ),
        "infidelity": AttributionDefinition(
            "Infidelity",
            "Mean squared distance between what the explanation says a perturbation changes and what it changes, in "
            "squared units of the target.",
            "E (I . phi - (F(x) - F(x - I)))^2",
            *(_LOWER, _FAITHFULNESS, "Yeh et al. 2019"),
        ),
        "relative_infidelity": AttributionDefinition(
            "Relative infidelity",
            "Infidelity as a share of the mean squared change; 0 is perfect, and an explanation of zeros has 1.",
            "E (I . phi - (F(x) - F(x - I)))^2 / E (F(x) - F(x - I))^2",
            *(_LOWER, _FAITHFULNESS, "Yeh et al. 2019"),
        ),
        "local_accuracy": AttributionDefinition(
            "Local accuracy",
            "How far contributions miss the difference they should sum to, against the size of the prediction. It "
            "mixes the error of integration with that of drawing references, and a method can force it to 0 whatever "
            "else is wrong, so it ranks no methods.",
            "mean over times of sqrt(E (F - mean F(x') - sum of phi)^2 / E F^2)",
            *(_LOWER, _FAITHFULNESS, "Krzyzinski et al. 2023"),
        ),
        "max_sensitivity": AttributionDefinition(
            "Largest sensitivity",
            "Largest relative change of the explanation under small random changes of the input.",
            "max over e of ||phi(x + e) - phi(x)|| / ||phi(x)||, |e| <= radius",
            *(_LOWER, _ROBUSTNESS, "Yeh et al. 2019"),
        ),
        "average_sensitivity": AttributionDefinition(
            "Average sensitivity",
            "Mean relative change of the explanation under small random changes of the input.",
            "mean over e of ||phi(x + e) - phi(x)|| / ||phi(x)||, |e| <= radius",
            *(_LOWER, _ROBUSTNESS, "Bhatt et al. 2020"),
        ),
        "seed_distance": AttributionDefinition(
            "Distance between seeds",
            "Relative distance between explanations of the same model that differ in the seed of the explainer only.",
            "mean over pairs of ||phi_b - phi_a|| / ||phi_a||",
            *(_LOWER, _ROBUSTNESS, "Alvarez-Melis and Jaakkola 2018"),
        ),
        "seed_rank_correlation": AttributionDefinition(
            "Order over seeds",
            "How well the order of contributions agrees between seeds of the explainer.",
            "mean over pairs of Spearman(phi_a(t), phi_b(t))",
            *(_HIGHER, _ROBUSTNESS, "Alvarez-Melis and Jaakkola 2018"),
        ),
        "refit_distance": AttributionDefinition(
            "Distance between refits",
            "Relative distance between explanations of models of one kind, trained again.",
            "mean over pairs of ||phi_b - phi_a|| / ||phi_a||",
            *(_LOWER, _ROBUSTNESS, "Alvarez-Melis and Jaakkola 2018"),
        ),
        "refit_rank_correlation": AttributionDefinition(
            "Order over refits",
            "How well the order of contributions agrees between models of one kind, trained again.",
            "mean over pairs of Spearman(phi_a(t), phi_b(t))",
            *(_HIGHER, _ROBUSTNESS, "Alvarez-Melis and Jaakkola 2018"),
        ),
        "pointing_game": AttributionDefinition(
            "Pointing game",
            "Share of instances whose largest contribution lies inside the mask.",
            "mean of [argmax phi(t) in mask]; tied largest contributions count by their share inside",
            *(_HIGHER, _LOCALISATION, "Zhang et al. 2018"),
        ),
        "mass_inside": AttributionDefinition(
            "Mass inside",
            "Share of the contributions that lies inside the mask.",
            "sum of phi(t) in the mask / sum of phi(t); the size of the mask where all are 0",
            *(_HIGHER, _LOCALISATION, "Arras et al. 2022"),
        ),
        "mass_ratio": AttributionDefinition(
            "Mass against even spread",
            "Mass inside the mask, divided by what an even spread would put there; 1 is chance.",
            "mass inside / (size of the mask / size of the whole)",
            *(_HIGHER, _LOCALISATION, "Arras et al. 2022"),
        ),
        "top_k_inside": AttributionDefinition(
            "Largest inside",
            "Share of the largest contributions, as many as the mask has places, that lies inside the mask.",
            "|top-k of phi(t) and mask| / k, k the size of the mask",
            *(_HIGHER, _LOCALISATION, "Theiner et al. 2022"),
        ),
        "mass_against": AttributionDefinition(
            "Mass against a second mask",
            "Contribution per place in the first mask against the second; 1/2 where they are alike.",
            "m_1 / (m_1 + m_2), m the mean of phi(t) in a mask",
            *(_HIGHER, _LOCALISATION, "Arras et al. 2022"),
        ),
        "weight_randomisation": AttributionDefinition(
            "Similarity after weights at random",
            "Similarity of the explanation to that of the same network with random weights; it should be lost.",
            "Spearman(|phi(t)|, |phi(t) of the randomised network|)",
            *(_LOWER, _RANDOMISATION, "Adebayo et al. 2018"),
        ),
        "label_randomisation": AttributionDefinition(
            "Similarity after outcomes at random",
            "Similarity of the explanation to that of a model trained on permuted outcomes; it should be lost.",
            "Spearman(|phi(t)|, |phi(t) of the model of permuted outcomes|)",
            *(_LOWER, _RANDOMISATION, "Adebayo et al. 2018"),
        ),
        "refit_similarity": AttributionDefinition(
            "Similarity after training again",
            "Similarity of the explanation to that of a model of the same kind, trained again: the control of the "
            "randomisation tests.",
            "Spearman(|phi(t)|, |phi(t) of the model trained again|)",
            *(_HIGHER, _RANDOMISATION, "Adebayo et al. 2018"),
        ),
        "rank_agreement": AttributionDefinition(
            "Order of contributions",
            "How well two explanations agree on the order of contributions.",
            "Spearman(phi_a(t), phi_b(t))",
            *(_NONE, _AGREEMENT, "Krishna et al. 2024"),
        ),
        "sign_agreement": AttributionDefinition(
            "Signs",
            "Share of features to which two explanations give the same sign.",
            "mean over features of [sign phi_a(t) = sign phi_b(t)]",
            *(_NONE, _AGREEMENT, "Krishna et al. 2024"),
        ),
        "top_k_agreement": AttributionDefinition(
            "Largest features in common",
            "Share of the k largest contributions that two explanations have in common.",
            "|top-k of |phi_a(t)| and top-k of |phi_b(t)|| / k; ties at the edge share what is left",
            *(_NONE, _AGREEMENT, "Krishna et al. 2024"),
        ),
        "distance": AttributionDefinition(
            "Relative distance",
            "Distance of a second explanation from the first, relative to the size of the first.",
            "||phi_b - phi_a|| / ||phi_a||",
            *(_NONE, _AGREEMENT, "Krishna et al. 2024"),
        ),
        "effective_features": AttributionDefinition(
            "Effective number of features",
            "Number of equally large contributions that would be as spread out as these.",
            "exp(-sum of p log p), p = |phi(t)| / sum of |phi(t)|; the number of features where all are 0",
            *(_LOWER, _COMPLEXITY, "Bhatt et al. 2020"),
        ),
        "sparseness": AttributionDefinition(
            "Sparseness",
            "Gini index of the absolute contributions: 0 where all are alike, near 1 where one stands alone.",
            "1 - 2 sum over k of |phi|_(k) / sum of |phi| (p - k + 1/2) / p, |phi|_(k) rising",
            *(_HIGHER, _COMPLEXITY, "Chalasani et al. 2020"),
        ),
    }
)
"""The definition of every score of an attribution, by its name."""


def check_record(score: Score) -> dict[str, object]:
    """A score of an attribution with its label and its meaning, as plain values for a json file; NaN becomes None."""
    definition = ATTRIBUTION_DEFINITIONS[score.name]
    plain = score.to_json()
    kept = ("name", "value", "lower", "upper", "direction", "category", "settings")
    return {name: plain[name] for name in kept} | {"label": definition.label, "meaning": definition.meaning}


def checks_to_json(
    scores: Iterable[Score], curves: Mapping[str, Mapping[str, Iterable[float]]] | None = None
) -> dict[str, object]:
    """Scores and curves as plain values for a json file.

    Args:
        scores: Scores of an attribution.
        curves: By name, the "share" removed and the "value" there, such as `RemovalCurve.to_json` gives them.
    """
    plain = {
        name: {
            key: [float(value) if math.isfinite(value) else None for value in values] for key, values in curve.items()
        }
        for name, curve in (curves or {}).items()
    }
    return {"scores": [check_record(score) for score in scores], "curves": plain}
