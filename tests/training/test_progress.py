"""Progress is a plain line per epoch, or a bar on a terminal; the library itself prints nothing."""

import io
import sys

from rich.console import Console

from survlens.training.fit import FitSettings, fit
from survlens.training.history import EpochRow
from survlens.training.objectives import SurvivalObjective
from survlens.training.progress import ConsoleProgress, training_progress

ROW = EpochRow(3, {"total": 1.23456}, {"total": 2.0}, 0.51)


def test_one_plain_line_per_epoch(model, rows):
    lines = []
    settings = FitSettings(epochs=3, batch=64, learning_rate=0.01)
    fit(model(), rows(), rows(40, seed=1), SurvivalObjective(), settings, on_epoch=ConsoleProgress(lines.append, 3))
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]


def test_the_line_holds_the_numbers():
    lines = []
    ConsoleProgress(lines.append, 40, name="cox-vae")(ROW)
    assert lines == ["cox-vae: epoch 3/40  loss 1.2346  validation 2.0000  0.5 s"]


def test_a_pipe_gets_lines_without_codes():
    stream = io.StringIO()
    with training_progress(Console(file=stream, width=20), 40, name="[a]") as on_epoch:
        on_epoch(ROW)
    assert stream.getvalue() == "[a]: epoch 3/40  loss 1.2346  validation 2.0000  0.5 s\n"


def test_a_terminal_gets_a_bar():
    stream = io.StringIO()
    with training_progress(Console(file=stream, force_terminal=True, width=120), 40, name="vae") as on_epoch:
        on_epoch(ROW)
    assert "3/40" in stream.getvalue()
    assert "validation 2.0000" in stream.getvalue()


def test_a_fit_prints_nothing(model, rows, capsys):
    fit(model(), rows(), None, SurvivalObjective(), FitSettings(epochs=1, batch=64, learning_rate=0.01))
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
    assert sys.stdout is not None
