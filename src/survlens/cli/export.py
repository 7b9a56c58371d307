"""`survlens export`: a network of a run for other programs."""

from __future__ import annotations

from pathlib import Path

import click

from survlens.cli.group import traceback_option
from survlens.cli.screen import say, told_warnings


def _numbers(_context: click.Context, _parameter: click.Parameter, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"must be numbers with commas between them, such as 12,24,60; got {text!r}.") from None


@click.command()
@click.argument("run", metavar="RUN", type=click.Path(file_okay=False, path_type=Path))
@click.argument("model", metavar="MODEL")
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="ONNX file to write.")
@click.option("--times", required=True, callback=_numbers, metavar="T,T,...", help="Where survival is asked.")
@click.option("--fit", metavar="FOLD-SEED", help="Which fit, such as fold1-seed3; the first by default.")
@traceback_option
def export(run: Path, model: str, out: Path, times: tuple[float, ...], fit: str | None) -> None:
    """Write the network MODEL of the folder RUN as an ONNX file.

    The file takes images and tables that are preprocessed already, and gives survival at fixed times and the risk. What
    preprocessing that is stands in the metadata of the file. Needs the extra [onnx].
    """
    from survlens.artifacts.run_folder import RunFolder
    from survlens.study.export import export_model

    with told_warnings():
        say(f"wrote {export_model(RunFolder.open(run), model, out, times=times, fit=fit)}")
