"""The command `survlens`."""

from __future__ import annotations

import click

from survlens import __version__
from survlens.cli.check import check
from survlens.cli.demo import demo
from survlens.cli.evaluate import evaluate
from survlens.cli.explain import explain
from survlens.cli.export import export
from survlens.cli.group import VerbGroup, traceback_option
from survlens.cli.import_scans import import_group
from survlens.cli.init import init
from survlens.cli.portrait import portrait
from survlens.cli.report import report
from survlens.cli.reproduce import reproduce
from survlens.cli.run import run
from survlens.cli.simulate import simulate


@click.group(cls=VerbGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="survlens")
@traceback_option
def main() -> None:
    """Survival models on medical images and clinical tables, and what they see.

    Exit codes: 0 fine, 1 failure, 2 wrong usage, 3 data that cannot be used, 130 interrupted.
    """


for _verb in (init, check, run, evaluate, explain, report, export, demo, import_group, portrait, simulate, reproduce):
    main.add_command(_verb)
