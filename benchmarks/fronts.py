"""Draws error against time from the tables of results/, one picture per estimand. Run: python benchmarks/fronts.py

Path integrals come from results/attribution_accuracy.md, Shapley values from results/survshap.md: run
attribution_accuracy.py and shapley.py first. Writes results/front_paths.png and results/front_shapley.png.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

RESULTS = Path(__file__).resolve().parent / "results"
MARKS = {"survlens": ("#0072B2", "o"), "Gauss-Legendre": ("#D55E00", "s"), "right Riemann": ("#009E73", "^")}
OTHER = {"midpoint": ("#CC79A7", "v"), "captum": ("#000000", "x"), "survshap": ("#000000", "x")}
PLACES = {
    "Gauss-Legendre": ((-6, -9), "right"),
    "captum": ((-8, 4), "right"),
    "survshap": ((-8, -10), "right"),
}
"""Where the words of a family stand beside its points."""
FINEST = 1e-8  # errors below this cannot be told from the oracle's and are drawn here
SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0}


def paths() -> Iterator[tuple[str, float, float]]:
    """Rule, milliseconds per instance, and distance to survlens; survlens itself by its largest completeness gap."""
    text = (RESULTS / "attribution_accuracy.md").read_text(encoding="utf-8").split("## CoxPH, ReLU")[1].split("## ")[0]
    for line in text.splitlines():
        cells = [cell.strip().strip("*") for cell in line.strip("|").split("|")]
        if len(cells) == 5 and re.fullmatch(r"[\d.]+", cells[1]):
            if cells[0].startswith("Gauss-Legendre") and "float32" in cells[0]:
                continue
            error = FINEST if cells[4] == "–" else float(cells[4])
            yield cells[0].replace("**", ""), float(cells[1]), max(error, FINEST)


def shapley() -> Iterator[tuple[str, float, float]]:
    """Setting, milliseconds for a row, and relative error against all coalitions."""
    text = (RESULTS / "survshap.md").read_text(encoding="utf-8").split("## Drawn")[1]
    for line in text.splitlines():
        found = re.fullmatch(r"\| (.+?) \| ([\d.]+) (ms|s|min) \| ([\d.]+)% \|", line.strip())
        if found:
            yield found[1], 1e3 * SECONDS[found[3]] * float(found[2]), float(found[4]) / 100


def draw(axes: Axes, points: list[tuple[str, float, float]]) -> None:
    styles, seen = {**MARKS, **OTHER}, set()
    for name, time, error in points:
        family = next(key for key in styles if name.startswith(key))
        label = family if family not in seen else None
        seen.add(family)
        axes.plot(time, error, styles[family][1], color=styles[family][0], label=label, markersize=7)
        setting = name.removeprefix(family).strip(" ,").replace("(", "").replace(")", "")
        shift, side = PLACES.get(family, ((6, 4), "left"))
        axes.annotate(setting, (time, error), xytext=shift, textcoords="offset points", fontsize=7, ha=side)
    axes.set(xscale="log", yscale="log")
    axes.grid(True, which="major", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=8)


def main() -> None:
    for name, points, title, x, y in (
        (
            "front_paths",
            list(paths()),
            "GradSHAP(t) of a Cox network with ReLU, 20 features, 99 references, 43 times",
            "Processor time per instance (ms)",
            "Relative L2 distance to the exact integrals\n(exact ones drawn at 1e-8)",
        ),
        (
            "front_shapley",
            list(shapley()),
            "SurvSHAP(t) of a Cox network, 20 features, 25 references, 50 times",
            "Time per row (ms)",
            "Relative L2 distance to all 1,048,576 coalitions",
        ),
    ):
        figure, axes = plt.subplots(figsize=(7.2, 4.4), layout="constrained")
        draw(axes, points)
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_xlabel(x, fontsize=9)
        axes.set_ylabel(y, fontsize=9)
        figure.savefig(RESULTS / f"{name}.png", dpi=150)
        plt.close(figure)


if __name__ == "__main__":
    main()
