"""Refined segments beside Gauss-Legendre and midpoint at equal gradients. Run: .venv/bin/python benchmarks/segments.py

IntGrad(t) of S at three times, for random convolutional networks with a Cox head, two lines each, float64. The truth is
a midpoint rule of 16,000 points; each rule is charged one gradient per reverse pass.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from survlens.core.outcome import SurvivalOutcome
from survlens.core.targets import survival
from survlens.explain.held import held_still
from survlens.explain.outer.outer_maps import OuterMap
from survlens.explain.path_rules.segments import RefinedSegments
from survlens.heads.cox import CoxPH
from survlens.models.survival_model import SurvivalModel

SIDE, BUDGETS, SEEDS, POINTS = (12, 15), (24, 64, 120), range(4), 16_000
TIMES = torch.tensor([2.0, 4.0, 8.5], dtype=torch.float64)
Rule = Callable[[int], tuple[np.ndarray, np.ndarray]]


def strided() -> list[nn.Module]:
    return [
        *(nn.Conv2d(1, 10, 3, padding=1), nn.ReLU(), nn.Conv2d(10, 12, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(12, 12, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(144, 8), nn.ReLU()),
    ]


def pooled() -> list[nn.Module]:
    return [
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 8), nn.ReLU()),
    ]


def model_of(layers: list[nn.Module], seed: int) -> SurvivalModel:
    torch.manual_seed(seed)
    model = SurvivalModel({"image": nn.Sequential(*layers)}, CoxPH(8)).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0, 1.4 / (parameter[0].numel() if parameter.ndim > 1 else 12) ** 0.5)
    times = torch.linspace(0.5, 10, 30, dtype=torch.float64)
    outcome = SurvivalOutcome(times, torch.ones(30, dtype=torch.int64), "months")
    model.head.fit_baseline(torch.randn(30, 8, dtype=torch.float64), outcome)
    return model


def midpoint(count: int) -> tuple[np.ndarray, np.ndarray]:
    return (np.arange(count) + 0.5) / count, np.full(count, 1 / count)


def gauss_legendre(count: int) -> tuple[np.ndarray, np.ndarray]:
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return (nodes + 1) / 2, weights / 2


def by_points(model: SurvivalModel, start: Tensor, end: Tensor, rule: Rule, count: int) -> Tensor:
    nodes, weights = (torch.as_tensor(each) for each in rule(count))
    total = end.new_zeros((*end.shape, len(TIMES)))
    for row in range(len(end)):
        for part in torch.arange(count).split(1000):
            points = (start[row] + nodes[part].reshape(-1, 1, 1, 1) * (end[row] - start[row])).requires_grad_(True)
            raw = model.head.raw(model.embed({"image": points}))
            (slope,) = torch.autograd.grad(raw.sum(), points)
            leaf = raw.detach().requires_grad_(True)
            curves = model.head.predict_from_raw(leaf, TIMES).survival
            shares = torch.cat([torch.autograd.grad(each.sum(), leaf, retain_graph=True)[0] for each in curves.T], 1)
            scaled = shares * weights[part][:, None]
            total[row] += torch.einsum("n...,nt->...t", slope, scaled) * (end[row] - start[row])[..., None]
    return total


def timed(run: Callable[[], object]) -> tuple[object, float]:
    begin = time.perf_counter()
    return run(), time.perf_counter() - begin


def main() -> None:
    torch.set_num_threads(1)
    lines = [
        "| network | gradients | rule | relative L2 error | seconds | estimate / true error |",
        "|---|---|---|---|---|---|",
    ]
    for kind in (strided, pooled):
        cases = []
        for seed in SEEDS:
            model = model_of(kind(), seed)
            start, end = 0.1 * torch.randn(2, 1, *SIDE).double(), torch.randn(2, 1, *SIDE).double()
            cases.append((model, start, end, by_points(model, start, end, midpoint, POINTS)))
        for budget in BUDGETS:
            found: dict[str, list[tuple[float, float]]] = {}
            ratios: list[float] = []
            for model, start, end, truth in cases:
                for name, rule in (("midpoint", midpoint), ("Gauss-Legendre", gauss_legendre)):
                    value, seconds = timed(lambda m=model, s=start, e=end, r=rule, b=budget: by_points(m, s, e, r, b))
                    found.setdefault(name, []).append((float((value - truth).norm() / truth.norm()), seconds))
                with held_still(model) as held:
                    outer = OuterMap(held.head, survival, TIMES)
                    segments = RefinedSegments(tolerance=0, budget=budget)
                    (integral,), seconds = timed(
                        lambda h=held, o=outer, r=segments, s=start, e=end: r.integrate(
                            h, [o], {"image": s}, {"image": e}, ("image",)
                        )
                    )
                wrong = integral.values["image"] - truth
                found.setdefault("refined segments", []).append((float(wrong.norm() / truth.norm()), seconds))
                ratios += (integral.error / wrong.abs().flatten(1, -2).amax(1)).flatten().tolist()
            inside = np.mean([1 / 3 < each < 3 for each in ratios])
            for name, pairs in found.items():
                error, seconds = np.median(pairs, axis=0)
                note = (
                    f"median {np.median(ratios):.2f}, {inside:.0%} of {len(ratios)} within 3" if "seg" in name else ""
                )
                lines.append(f"| {kind.__name__} | {budget} | {name} | {error:.2e} | {seconds:.3f} | {note} |")
    page = ["# Refined segments at equal gradients", "", *(__doc__ or "").strip().splitlines()[2:], ""]
    page += [
        f"Medians over {len(SEEDS)} networks. Made by `python benchmarks/segments.py`; one thread.",
        "",
        *lines,
        "",
    ]
    target = Path(__file__).parent / "results" / "segments.md"
    target.write_text("\n".join(page), encoding="utf-8")
    print("\n".join(page))


if __name__ == "__main__":
    main()
