"""Telling the user how a training goes: a bar on a terminal, one plain line per epoch elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from survlens.training.history import EpochRow

if TYPE_CHECKING:
    from rich.console import Console

OnEpoch = Callable[[EpochRow], object]


class ConsoleProgress:
    """One plain line per epoch; give it to `fit` as `on_epoch`.

    Args:
        write: Takes each line, without a line end; `click.echo` or the `info` of a logger.
        epochs: Epochs of the whole training.
        name: Name of the model, put before each line.
    """

    def __init__(self, write: Callable[[str], object], epochs: int, *, name: str = ""):
        self._write, self._epochs, self._start = write, epochs, f"{name}: " if name else ""

    def __call__(self, row: EpochRow) -> None:
        """Writes the line of one epoch."""
        self._write(f"{self._start}epoch {row.epoch}/{self._epochs}  {summary(row)}")


@contextmanager
def training_progress(console: Console, epochs: int, *, name: str = "") -> Iterator[OnEpoch]:
    """Gives what `fit` takes as `on_epoch`: a bar on a terminal, plain lines elsewhere.

    Args:
        console: A `rich.console.Console`.
        epochs: Epochs of the whole training.
        name: Name of the model.
    """
    if not console.is_terminal:
        yield ConsoleProgress(
            lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True), epochs, name=name
        )
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[summary]}"), console=console, transient=False) as bar:
        task = bar.add_task(name or "training", total=epochs, summary="")
        yield lambda row: bar.update(task, completed=row.epoch, summary=summary(row))


def summary(row: EpochRow) -> str:
    """The numbers of an epoch in a few words."""
    validation = f"  validation {row.validation['total']:.4f}" if row.validation else ""
    return f"loss {row.train['total']:.4f}{validation}  {row.seconds:.1f} s"
