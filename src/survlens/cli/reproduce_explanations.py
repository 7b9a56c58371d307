"""`survlens reproduce explanations-...`: the published experiments on explanations over time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from survlens.cli.group import traceback_option
from survlens.cli.screen import say, show_table

if TYPE_CHECKING:
    from survlens.study.reproduce.tables import Findings

_data = click.option(
    "--data",
    "folder",
    metavar="FOLDER",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with the published files (time_independent_train.csv and its kin). Without it data are drawn anew.",
)
_seed = click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
_epochs = click.option("--epochs", type=click.IntRange(1), default=200, show_default=True, help="Most epochs of a fit.")


def _train(rows: int) -> Callable[[Any], Any]:
    return click.option("--train", type=click.IntRange(50), default=rows, show_default=True, help="Training rows.")


def _out(name: str) -> Callable[[Any], Any]:
    folder = click.Path(path_type=Path)
    return click.option("--out", type=folder, metavar="DIR", default=Path(name), show_default=True)


def _end(out: Path, findings: Findings) -> None:
    from survlens.study.reproduce.tables import write_findings

    path = write_findings(out, findings)
    for table in findings.tables:
        show_table(table.title, table.columns, table.cells())
    say(f"wrote {path}")


def _simulation(name: str, folder: Path | None, out: Path, **sizes: Any) -> None:
    from survlens.study.reproduce.explained_simulations import TruthPlan, explained_simulation
    from survlens.study.reproduce.simulated_networks import Simulation

    _end(out, explained_simulation(Simulation(name), TruthPlan(folder=folder, **sizes), say))


@click.command("explanations-time-independent")
@_data
@_out("explanations-time-independent")
@_train(2000)
@click.option("--test", type=click.IntRange(20), default=500, show_default=True, help="Rows explained.")
@_epochs
@_seed
@traceback_option
def time_independent(folder: Path | None, out: Path, train: int, test: int, epochs: int, seed: int) -> None:
    """Gradients and integrated gradients of three networks beside those of the true, proportional hazard."""
    _simulation("time_independent", folder, out, train=train, test=test, epochs=epochs, seed=seed)


@click.command("explanations-time-dependent")
@_data
@_out("explanations-time-dependent")
@_train(9500)
@click.option("--test", type=click.IntRange(20), default=500, show_default=True, help="Rows explained.")
@click.option("--refits", type=click.IntRange(2, 100), default=4, show_default=True, help="Fits behind the interval.")
@_epochs
@_seed
@traceback_option
def time_dependent(folder: Path | None, out: Path, train: int, test: int, refits: int, epochs: int, seed: int) -> None:
    """The same where the effect of x1 changes its sign in time, and when each network says it does."""
    _simulation("time_dependent", folder, out, train=train, test=test, refits=refits, epochs=epochs, seed=seed)


@click.command("explanations-local-accuracy")
@_out("explanations-local-accuracy")
@_train(1000)
@click.option("--instances", type=click.IntRange(2), default=20, show_default=True, help="Rows explained.")
@click.option("--features", type=click.IntRange(3), default=20, show_default=True)
@_epochs
@_seed
@traceback_option
def local_accuracy(out: Path, train: int, instances: int, features: int, epochs: int, seed: int) -> None:
    """What contributions miss of the prediction, split into integration and drawing of references."""
    from survlens.study.reproduce.explanation_accuracy import AccuracyPlan, accuracy_of_networks

    plan = AccuracyPlan(train=train, features=features, instances=instances, epochs=epochs, seed=seed)
    _end(out, accuracy_of_networks(plan, say))


@click.command("explanations-run-time")
@_out("explanations-run-time")
@_train(400)
@click.option("--instances", type=click.IntRange(2), default=20, show_default=True, help="Rows explained.")
@click.option("--references", type=click.IntRange(2), default=5, show_default=True, help="Rows to compare with.")
@click.option("--features", type=click.IntRange(3), multiple=True, default=(20, 160), show_default=True)
@click.option("--times", type=click.IntRange(2), multiple=True, default=(43, 1000), show_default=True)
@_seed
@traceback_option
def run_time(
    out: Path,
    train: int,
    instances: int,
    references: int,
    features: tuple[int, ...],
    times: tuple[int, ...],
    seed: int,
) -> None:
    """Seconds of each method by number of features and of times, beside a loop over times."""
    from survlens.study.reproduce.explanation_run_time import RunTimePlan, run_time_of_methods

    plan = RunTimePlan(train, features, times, instances, references, seed=seed)
    _end(out, run_time_of_methods(plan, say))


@click.command("explanations-ranking")
@_data
@_out("explanations-ranking")
@_train(2000)
@click.option("--test", type=click.IntRange(20), default=60, show_default=True, help="Rows explained.")
@_epochs
@_seed
@traceback_option
def ranking(folder: Path | None, out: Path, train: int, test: int, epochs: int, seed: int) -> None:
    """How often each method puts the features in the true order."""
    from survlens.study.reproduce.explanation_ranking import RankingPlan, ranking_of_features

    _end(out, ranking_of_features(RankingPlan(train, test, epochs=epochs, folder=folder, seed=seed), say))


COMMANDS = (time_independent, time_dependent, local_accuracy, run_time, ranking)
