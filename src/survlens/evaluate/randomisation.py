"""Does an explanation depend on what the model has learnt? Sanity checks by random weights and by random outcomes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from torch import nn

from survlens.core.choices import check_choice
from survlens.core.errors import InvalidValueError
from survlens.core.score import Score
from survlens.evaluate.attribution_values import Explained, Part, paired_values, rank_correlation, times_of
from survlens.evaluate.score_over_time import Intervals, ScoreOverTime, score_over_time


class Cascade(Enum):
    """Which layers are randomised at a step.

    FROM_OUTPUT: all layers from the output down to that of the step. ONE_LAYER: that layer alone. AT_ONCE: all layers
    in one step, which is all that the verdict of FROM_OUTPUT needs and much cheaper.
    """

    FROM_OUTPUT = "from the output down"
    ONE_LAYER = "one layer alone"
    AT_ONCE = "all layers at once"


@dataclass(frozen=True, slots=True, eq=False)
class RandomisationTest:
    """Similarity of an explanation to those of models that have learnt nothing, or less.

    Attributes:
        similarity: What decides: Spearman's correlation of |phi| with everything random; of single layers, the largest.
        threshold: What it must stay below.
        steps: What was randomised at each step.
        similarities: Similarity at each step.
        control: Similarity to models of the same kind that were trained again, where there are any.
    """

    similarity: ScoreOverTime
    threshold: float
    steps: tuple[str, ...]
    similarities: tuple[ScoreOverTime, ...]
    control: ScoreOverTime | None = None

    @property
    def passed(self) -> bool:
        """Whether the whole interval lies below the threshold and, with a control, below the interval of that."""
        interval = self.similarity.score.interval
        limits = [self.threshold]
        if self.control is not None and self.control.score.interval is not None:
            limits.append(self.control.score.interval.lower)
        return interval is not None and interval.upper < min(limits)

    @property
    def scores(self) -> tuple[Score, ...]:
        """The deciding similarity and, where there is one, the control."""
        return (self.similarity.score, *([] if self.control is None else [self.control.score]))


def weight_randomisation(
    model: nn.Module,
    explain: Callable[[nn.Module], Explained],
    *,
    cascade: Cascade = Cascade.FROM_OUTPUT,
    layers: Sequence[str] | None = None,
    copies: int = 5,
    refits: Sequence[Explained] = (),
    threshold: float = 0.5,
    seed: int = 0,
    intervals: Intervals | None = None,
) -> RandomisationTest:
    """Explains copies of a network whose layers were drawn anew, and compares with the explanation of the network.

    A layer is drawn anew by its own `reset_parameters`, so normalisation starts over too; buffers such as a baseline
    hazard stay. The similarity is Spearman's correlation of |phi(t)| per instance and time, averaged over copies. Its
    interval is over instances; the copies are few, so see that they are enough for the steps to look smooth.

    Args:
        model: The network; it stays as it is.
        explain: From a network to the attributions of the same rows, times and target.
        cascade: Which layers are randomised at a step.
        layers: Names of modules, as in `model.named_modules()`, from the output down, one step each; by default every
            module with a weight matrix, with the modules without one that follow it.
        copies: Random copies per step.
        refits: Explanations of models of the same kind, trained again with other seeds: the control.
        threshold: Similarity below which the test is passed.
        seed: Seed of the random weights.
        intervals: How intervals are made.

    Raises:
        InvalidValueError: If there is no layer, one is unknown, or `copies` < 1.

    References:
        Adebayo et al. 2018.
    """
    check_choice("cascade", cascade, Cascade)
    groups = _groups(model) if layers is None else [(name,) for name in layers]
    known = dict(model.named_modules())
    unknown = [name for group in groups for name in group if name not in known]
    if not groups or unknown or copies < 1:
        raise InvalidValueError(
            f"`layers` must name modules of the model and `copies` be >= 1; got {', '.join(unknown) or len(groups)} "
            f"and {copies}. See model.named_modules()."
        )
    if cascade is Cascade.AT_ONCE:
        groups = [tuple(name for group in groups for name in group)]
    made, original, similarities = intervals or Intervals(), explain(model), []
    for k in range(len(groups)):
        touched = groups[: k + 1] if cascade is Cascade.FROM_OUTPUT else groups[k : k + 1]
        names = [name for group in touched for name in group]
        others = (explain(randomised_copy(model, names, seed=seed + number)) for number in range(copies))
        settings = {"copies": copies, "cascade": cascade.value, "weight_seed": seed, "randomised": ", ".join(names)}
        similarities.append(_similarity("weight_randomisation", original, others, made, settings))
    last = similarities[-1]
    deciding = last if cascade is Cascade.FROM_OUTPUT else max(similarities, key=lambda each: each.score.value)
    steps = tuple(group[0] for group in groups)
    return RandomisationTest(deciding, threshold, steps, tuple(similarities), _control(original, refits, made))


def label_randomisation(
    original: Explained,
    permuted: Sequence[Explained],
    *,
    refits: Sequence[Explained] = (),
    threshold: float = 0.5,
    intervals: Intervals | None = None,
) -> RandomisationTest:
    """Compares an explanation with those of models of the same kind trained on permuted outcomes.

    Args:
        original: Attributions of the model.
        permuted: Attributions of the same rows by models that were trained on permuted outcomes.
        refits: Attributions by models that were trained on the true outcomes with other seeds: the control.
        threshold: Similarity below which the test is passed.
        intervals: How intervals are made.

    Raises:
        InvalidValueError: If there is no model of permuted outcomes, or rows, features or times differ.

    References:
        Adebayo et al. 2018.
    """
    if not permuted:
        raise InvalidValueError("`permuted` must hold the explanation of at least one model; got none.")
    made = intervals or Intervals()
    found = _similarity("label_randomisation", original, permuted, made, {"models": len(permuted)})
    return RandomisationTest(found, threshold, ("outcomes",), (found,), _control(original, refits, made))


def randomised_copy(model: nn.Module, layers: Sequence[str], *, seed: int) -> nn.Module:
    """A copy of a network with the parameters of some modules drawn anew; without effect on other random numbers.

    Modules are reset by their `reset_parameters`; parameters of a module without one are drawn from a normal
    distribution with their own mean and standard deviation.

    Args:
        model: The network; it stays as it is.
        layers: Names of modules, as in `model.named_modules()`.
        seed: Seed of the new weights.
    """
    found = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)
        for name in layers:
            _reset(found.get_submodule(name))
    return found


def _reset(module: nn.Module) -> None:
    own = list(module.parameters(recurse=False))
    reset = getattr(module, "reset_parameters", None)
    if reset is not None:
        device = own[0].device if own else torch.device("cpu")
        module.to("cpu")
        reset()
        module.to(device)
        return
    for parameter in own:
        drawn = torch.randn(parameter.shape, dtype=torch.float64)
        spread = parameter.double().std(unbiased=False).cpu()
        parameter.copy_((parameter.double().mean().cpu() + spread * drawn).to(parameter))


def _groups(model: nn.Module) -> list[tuple[str, ...]]:
    """Modules with a weight matrix, from the output down, each with those without one that follow it."""
    groups: list[list[str]] = []
    for name, module in model.named_modules():
        own = list(module.parameters(recurse=False))
        if own and (not groups or any(each.ndim > 1 for each in own)):
            groups.append([name])
        elif own:
            groups[-1].append(name)
    return [tuple(group) for group in reversed(groups)]


def _similarity(
    name: str,
    original: Explained,
    others: Iterable[Explained],
    intervals: Intervals,
    settings: dict[str, float | int | str],
) -> ScoreOverTime:
    found = [
        [rank_correlation(*map(Part.ABSOLUTE.of, both)) for both in paired_values(original, other)] for other in others
    ]
    return score_over_time(name, np.mean(found, axis=0), times_of(original), intervals, settings=settings)


def _control(original: Explained, refits: Sequence[Explained], intervals: Intervals) -> ScoreOverTime | None:
    if not refits:
        return None
    return _similarity("refit_similarity", original, refits, intervals, {"models": len(refits)})
