"""What `survlens --help` promises, and what it costs."""

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from survlens import __version__
from survlens.cli.main import main

HEAVY = ("torch", "numpy", "pandas", "rich", "matplotlib", "lightning_fabric", "sklearn", "survlens.study")


def test_help_and_version_import_nothing_heavy():
    code = (
        "import sys\nfrom survlens.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit as end: assert end.code == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_the_installed_command_says_its_version():
    done = subprocess.run(
        [sys.executable, "-c", "from survlens.cli import main; main()", "--version"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip()) == (0, f"survlens, version {__version__}")


def commands(group: click.Group, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every command, also those within groups of commands."""
    found: list[tuple[str, ...]] = []
    for name, command in sorted(group.commands.items()):
        found += commands(command, (*before, name)) if isinstance(command, click.Group) else [(*before, name)]
    return found


@pytest.mark.parametrize("words", commands(main), ids=" ".join)
def test_every_command_has_help(words):
    result = CliRunner().invoke(main, [*words, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_an_unknown_verb_is_a_usage_error():
    assert CliRunner().invoke(main, ["runn"]).exit_code == 2
