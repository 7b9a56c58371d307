"""Times several libraries on one piece of work: interleaved repeats, medians, ratios, one markdown table."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"
LIBRARIES = ("survlens", "scikit-survival", "lifelines", "torchsurv", "pycox", "torch", "numpy", "scipy", "numba")


@dataclass
class Work:
    """One library's way to do the work."""

    library: str
    run: Callable[[], object]
    seconds: list[float] = field(default_factory=list)
    value: object = None
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def interleave(works: Sequence[Work], *, repeats: int = 15, budget: float = 30.0) -> None:
    """Warms every library once, then goes round; one that has used its budget of seconds sits out the later rounds."""
    for work in works:
        start = time.perf_counter()
        work.value = work.run()
        work.note = f"first call {spell(time.perf_counter() - start)}"
    for _ in range(repeats):
        for work in works:
            if sum(work.seconds) < budget:
                start = time.perf_counter()
                work.run()
                work.seconds.append(time.perf_counter() - start)


def spell(seconds: float) -> str:
    """Seconds in a fitting unit, three digits."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} µs"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def rows(label: str, works: Sequence[Work]) -> list[str]:
    """Table rows: library, median, range, how many times as long as the first work, the value found."""
    own = works[0].median
    lines = []
    for work in works:
        span = f"{spell(min(work.seconds))} to {spell(max(work.seconds))}, {len(work.seconds)} runs"
        ratio = "1" if work is works[0] else f"{work.median / own:.3g}"
        value = f"{work.value:.10f}" if isinstance(work.value, float) else str(work.value)
        lines.append(f"| {label} | {work.library} | {spell(work.median)} | {span} | {ratio} | {value} |")
    return lines


HEAD = ["| work | library | median | range | times survlens | value |", "|---|---|---|---|---|---|"]


def write(name: str, title: str, body: Sequence[str], *, command: str | None = None) -> None:
    """Prints the page and keeps it in the results."""
    load = os.getloadavg()[0]
    setting = (
        f"{os.cpu_count()} cores ({platform.machine()}), load average {load:.1f} at the end, Python "
        f"{platform.python_version()}; " + ", ".join(f"{library} {version(library)}" for library in LIBRARIES) + "."
    )
    page = "\n".join(
        [f"# {title}", "", setting, f"Made by `python benchmarks/{command or name + '.py'}`.", "", *body, ""]
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(page)
    print(page)


def version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "not installed"


def available(library: str, build: Callable[[], Callable[[], object]], skipped: list[str]) -> list[Work]:
    """The work of a library, or nothing and a line that says why it is missing."""
    try:
        return [Work(library, build())]
    except ImportError as error:
        skipped.append(f"Skipped: {library} ({error}).")
        return []
