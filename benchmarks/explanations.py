"""Explanations over time beside a loop over times. Run: .venv-peers/bin/python benchmarks/explanations.py

All works of a table run in turn in one process, and ratios are of medians. Peak memory is that of a fresh process.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from side_by_side import Work, available, interleave, spell, write
from torch import Tensor, nn

from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.explain.expected import GradSHAP
from survlens.explain.groups import GroupedContributions, column_groups, modality_groups
from survlens.explain.held import held_still
from survlens.explain.jacobian import Strategy, raw_slopes
from survlens.explain.path_rules.paths import GaussLegendre
from survlens.explain.references import References
from survlens.heads.cox import CoxPH
from survlens.heads.logistic_hazard import LogisticHazard
from survlens.models.survival_model import SurvivalModel

INSTANCES, REFERENCES, NODES, LAST = 100, 25, 25, 40.0
Heads = dict[str, Callable[[int], nn.Module]]


def perceptron(features: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(features, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, outputs))


def rows(count: int, features: int, seed: int) -> dict[str, Tensor]:
    return {"table": torch.randn((count, features), generator=torch.Generator().manual_seed(seed))}


def cox(features: int) -> nn.Module:
    head = CoxPH(features, network=perceptron(features, 1))
    generator = torch.Generator().manual_seed(2)
    time = torch.rand(1500, generator=generator, dtype=torch.float64) * LAST
    time[0] = LAST
    event = (torch.rand(1500, generator=generator) < 0.7).long()
    head.eval().fit_baseline(rows(1500, features, 3)["table"], SurvivalOutcome(time, event, "months"))
    return head


def discrete(features: int) -> nn.Module:
    return LogisticHazard(features, TimeGrid.equidistant(LAST, 20, "months"), network=perceptron(features, 20))


HEADS: Heads = {"Cox": cox, "discrete, 20 bins": discrete}


def model_with(head: str, features: int) -> SurvivalModel:
    torch.manual_seed(0)
    return SurvivalModel(nn.Identity(), HEADS[head](features)).eval()


def times(count: int) -> Tensor:
    return torch.linspace(0.5, LAST - 0.5, count, dtype=torch.float64)


def grad_shap(head: str, features: int, count: int) -> Callable[[], float]:
    model, x = model_with(head, features), rows(INSTANCES, features, 5)
    explainer = GradSHAP(References.all(rows(REFERENCES, features, 7)), GaussLegendre(NODES, NODES))
    asked = times(count)

    def run() -> float:
        return float(explainer(model, x, asked)["table"].values[0, 0, count // 2])

    return run


def captum_loop(head: str, features: int, count: int) -> Callable[[], float]:
    """Captum's integrated gradients with the same lines and nodes, averaged over references, one time after another."""
    from captum.attr import IntegratedGradients  # pyright: ignore[reportMissingImports]

    model, x = model_with(head, features), rows(INSTANCES, features, 5)["table"]
    lines = x.repeat_interleave(REFERENCES, 0)
    starts = rows(REFERENCES, features, 7)["table"].repeat(INSTANCES, 1)
    asked = times(count)

    def run() -> float:
        middle = 0.0
        for number in range(count):
            at = asked[number : number + 1]
            theirs = IntegratedGradients(
                lambda table, at=at: model.predict_survival({"table": table}, at).survival[:, 0]
            )
            found = theirs.attribute(lines, starts, n_steps=NODES, method="gausslegendre")
            mean = found.reshape(INSTANCES, REFERENCES, features).mean(1)
            if number == count // 2:
                middle = float(mean[0, 0])
        return middle

    return run


def pictures(count: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "image": torch.randn((count, 3, 32, 32), generator=generator),
        "table": torch.randn((count, 4), generator=generator),
    }


def picture_model() -> SurvivalModel:
    torch.manual_seed(0)
    image = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    table = nn.Sequential(nn.Linear(4, 16), nn.ReLU())
    head = LogisticHazard(48, TimeGrid.equidistant(LAST, 20, "months"), network=perceptron(48, 20))
    return SurvivalModel({"image": image, "table": table}, head).eval()


def grouped() -> tuple[Callable[[], float], Callable[[], float]]:
    """Contributions of the image and each covariate at 20 times: by groups, and by a reverse pass per bin."""
    model, x, starts = picture_model(), pictures(10, 5), pictures(5, 7)
    groups = (*modality_groups(("image",)), *column_groups("table", {f"x{place}": [place] for place in range(4)}, 4))
    references, asked = References.all(starts), times(20)
    explainer = GroupedContributions(groups, references, nodes=16, most_nodes=16)

    def ours() -> float:
        return float(explainer(model, x, asked)["groups"].values[0, 0, 10])

    places, weights = (torch.from_numpy(each).float() for each in np.polynomial.legendre.leggauss(16))

    def per_bin() -> float:
        total = torch.zeros(10, 5, 20)
        with held_still(model) as held:
            for number in range(5):
                before = {name: tensor[number : number + 1].expand_as(x[name]) for name, tensor in starts.items()}
                for place, weight in zip((1 + places) / 2, weights / 2, strict=True):
                    point = {name: before[name] + place * (x[name] - before[name]) for name in x}
                    raw, slopes = raw_slopes(held, point, ("image", "table"), strategy=Strategy.REVERSE)
                    along = {name: slopes[name] * (x[name] - before[name])[:, None] for name in x}
                    image = along["image"].flatten(2).sum(2)[..., None]
                    moved = torch.cat([image, along["table"]], dim=2) * weight / 5  # (instance, raw, group)
                    raw = raw.requires_grad_(True)
                    curve = held.head.predict_from_raw(raw, asked).survival
                    for column in range(20):
                        (cotangent,) = torch.autograd.grad(curve[:, column].sum(), raw, retain_graph=True)
                        total[:, :, column] += torch.einsum("nm,nmg->ng", cotangent, moved)
        return float(total[0, 0, 10])

    return ours, per_bin


def peak_megabytes(head: str, features: int, count: int) -> float:
    command = [sys.executable, __file__, "--peak", head, str(features), str(count)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peak_of_this_process(head: str, features: int, count: int) -> float:
    grad_shap(head, features, 5)()  # what the first call loads is not counted
    run = grad_shap(head, features, count)
    before = high_water()
    run()
    return high_water() - before


def high_water() -> float:
    """Largest resident memory so far, in MiB; `ru_maxrss` would start at that of the process that started this one."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def lines(label: str, works: list[Work], memory: str = "") -> list[str]:
    own = works[0].median
    return [
        f"| {label} | {work.library} | {spell(work.median)} | {spell(min(work.seconds))} to "
        f"{spell(max(work.seconds))}, {len(work.seconds)} runs | {work.median / own:.3g} | {work.value:.6g} | "
        f"{memory if work is works[0] else ''} |"
        for work in works
    ]


TABLE = ["| work | how | median | range | times the first | value | peak memory added |", "|" + "---|" * 7]


def main() -> None:
    body, skipped = [f"{torch.get_num_threads()} threads of torch.", ""], []
    body += [f"GradSHAP(t): {INSTANCES} instances, {REFERENCES} references, {NODES} nodes, in float32.", "", *TABLE]
    for head in HEADS:
        for features in (20, 160):
            works = [Work("survlens, T = 43", grad_shap(head, features, 43))]
            works.append(Work("survlens, T = 1000", grad_shap(head, features, 1000)))
            works += available("Captum, loop over T = 43", lambda f=features, h=head: captum_loop(h, f, 43), skipped)
            interleave(works, repeats=5, budget=20.0)
            memory = ", ".join(f"T = {n}: {peak_megabytes(head, features, n):.0f} MiB" for n in (43, 1000))
            body += lines(f"{head}, p = {features}", works, memory)
    ours, per_bin = grouped()
    works = [Work("survlens, a forward derivative per group", ours), Work("a reverse pass per bin", per_bin)]
    interleave(works, repeats=7, budget=20.0)
    body += lines("image 3 x 32 x 32 and 4 covariates, K = 20, 10 instances, 5 references, 16 nodes", works)
    write("explanations", "Explanations over time: time and memory", [*body, "", *dict.fromkeys(skipped)])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        print(peak_of_this_process(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
    else:
        main()
