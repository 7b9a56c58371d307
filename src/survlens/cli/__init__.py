"""The command line."""

from survlens.cli.main import main as main
