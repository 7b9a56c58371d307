"""Seconds to explain one patient's picture over time. Run: .venv/bin/python benchmarks/image_explanations.py

A picture of 128 x 128 x 3 and a table of 4 columns: a convolutional encoder with widths 8, 16 and 32, gated fusion, and
a logistic hazard on 10 intervals. S(t) is explained at 20 times, one patient per call. Weights are random, with the
last layer scaled so that log-odds spread over patients as those of a fitted model. Units are SiLU, which is smooth, or
ReLU, which has too many kinks to count.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait leave the processor to others

import torch
from side_by_side import spell, write
from torch import Tensor, nn

from survlens.core.attribution import Attribution
from survlens.core.grid import TimeGrid
from survlens.core.inputs import select_rows
from survlens.encoders.cnn import CNN
from survlens.encoders.mlp import MLP
from survlens.explain.cam import GradCAM
from survlens.explain.expected import GradSHAP
from survlens.explain.gradient import Gradient
from survlens.explain.groups import Group, GroupedContributions, column_groups
from survlens.explain.integrated import IntegratedGradients
from survlens.explain.occlusion import Occlusion
from survlens.explain.path_rules.segments import RefinedSegments
from survlens.explain.references import References
from survlens.explain.smooth import SmoothGrad, feature_ranges
from survlens.heads.logistic_hazard import LogisticHazard
from survlens.models.fusion import GatedFusion
from survlens.models.survival_model import SurvivalModel

SIDE, COLUMNS, INTERVALS, LAST, TOLERANCE = 128, 4, 10, 10.0, 1e-2
TARGET, REPEATS = 2.0, 2
Run = Callable[[SurvivalModel, dict[str, Tensor]], dict[str, Attribution]]


def patients(count: int, seed: int) -> dict[str, Tensor]:
    """Pictures of blobs of several sizes, in standard deviations, and tables."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.zeros((count, 3, SIDE, SIDE))
    for cells in (4, 16, 64):
        noise = torch.randn((count, 3, cells, cells), generator=generator)
        image += nn.functional.interpolate(noise, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    return {"image": image / image.std(), "table": torch.randn((count, COLUMNS), generator=generator)}


def with_relu(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.SiLU):
            setattr(module, name, nn.ReLU())
        else:
            with_relu(child)


def joint_model(*, relu: bool) -> SurvivalModel:
    torch.manual_seed(0)
    encoders = {"image": CNN(3, (8, 16, 32)), "table": MLP(COLUMNS, (16,))}
    fusion = GatedFusion(("image", "table"), [32, 16], 32)
    head = LogisticHazard(32, TimeGrid.equidistant(LAST, INTERVALS, "years"))
    model = SurvivalModel(encoders, head, fusion=fusion).eval()
    if relu:
        with_relu(model)
    with torch.no_grad():
        raw = model.head.raw(model.embed(patients(64, 3)))
        model.head.linear.weight /= raw.std(0)[:, None]
        raw = model.head.raw(model.embed(patients(64, 3)))
        model.head.linear.bias -= raw.mean(0) + 2.0  # a hazard of 0.12 in the middle of each interval
    return model


def methods() -> dict[str, Run]:
    times = torch.linspace(0.5, LAST - 0.5, 20, dtype=torch.float64)
    training = patients(64, 5)
    mean, five = References.mean(training), References.sample(training, 5)
    groups = (
        Group("image", "image"),
        *column_groups("table", {f"column {number + 1}": [number] for number in range(COLUMNS)}, COLUMNS),
    )
    explainers = {
        "Gradient": Gradient(),
        "SmoothGrad, 32 draws": SmoothGrad(Gradient(), feature_ranges(training)),
        "Grad-CAM": GradCAM(),
        "IntGrad, rule chosen, tolerance 1e-2": IntegratedGradients(mean, tolerance=TOLERANCE),
        "IntGrad, refined segments, tolerance 1e-2": IntegratedGradients(mean, RefinedSegments(TOLERANCE)),
        "GradSHAP, 5 references, rule chosen, tolerance 1e-2": GradSHAP(five, tolerance=TOLERANCE),
        "GradSHAP, 5 references, 12 gradients each": GradSHAP(five, RefinedSegments(TOLERANCE, budget=12)),
        "GradSHAP of image and 4 columns, 5 references": GroupedContributions(groups, five, tolerance=TOLERANCE),
        "Occlusion, window 16, stride 16": Occlusion(mean, 16, 16),
    }
    return {name: (lambda model, row, each=each: each(model, row, times)) for name, each in explainers.items()}


def seconds_of(
    run: Run, model: SurvivalModel, rows: list[dict[str, Tensor]]
) -> tuple[float, float, dict[str, Attribution]]:
    """The least seconds over the rows, by the clock and of processor time."""
    found = run(model, rows[0])
    clock, work = [], []
    for row in rows:
        begin = time.perf_counter(), time.process_time()
        found = run(model, row)
        clock.append(time.perf_counter() - begin[0])
        work.append(time.process_time() - begin[1])
    return min(clock), min(work), found


def doubt(errors: list[Tensor | None], found: dict[str, Attribution]) -> str:
    """The largest of the errors that are stated, as a share of the largest contribution."""
    stated = [error for error in errors if error is not None]
    if not stated:
        return ""
    size = max(float(each.values.abs().max()) for each in found.values())
    return f"{float(max(error.max() for error in stated)) / size:.1e}"


def main() -> None:
    options = argparse.ArgumentParser(description="Seconds to explain one patient's picture over time.")
    options.add_argument("--one-thread", action="store_true", help="Leave out two threads, as on a busy machine.")
    both = not options.parse_args().one_thread
    everyone = patients(REPEATS, 7)
    rows = [select_rows(everyone, torch.tensor([row])) for row in range(REPEATS)]
    lines = [
        "| units | method | 1 thread | 1 thread, processor | 2 threads | numerical error | sampling error |",
        "|---|---|---|---|---|---|---|",
    ]
    late = []
    for units in ("SiLU", "ReLU"):
        model = joint_model(relu=units == "ReLU")
        for name, run in methods().items():
            torch.set_num_threads(1)
            one, work, found = seconds_of(run, model, rows)
            torch.set_num_threads(2)
            two, _, _ = seconds_of(run, model, rows) if both else (float("nan"), 0.0, {})
            shown = spell(two) if both else "not timed"
            numerical = doubt([each.quadrature_error for each in found.values()], found)
            sampling = doubt([each.sampling_error for each in found.values()], found)
            lines.append(f"| {units} | {name} | {spell(one)} | {spell(work)} | {shown} | {numerical} | {sampling} |")
            late += [f"{name} ({units})"] if work > TARGET else []
            print(lines[-1], flush=True)
    body = [*(__doc__ or "").strip().splitlines()[2:], ""]
    body += [f"The least of {REPEATS} patients, by the clock; beside it the processor time on one thread, which other"]
    body += ["work on the machine lengthens less. Errors are those stated, the largest over features and times as a"]
    body += ["share of the largest contribution.", "", *lines, ""]
    body += [f"More than {TARGET:g} s of processor time: {', '.join(late) or 'none'}."]
    write("image_explanations", "Explanations of a picture over time", body)


if __name__ == "__main__":
    main()
