"""Verbs that fail with one line and a fixed exit code."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any, TypeVar

import click

from survlens.cli.failures import failure_of
from survlens.cli.screen import fail, say

C = TypeVar("C", bound=Callable[..., Any])
_TRACEBACK = "survlens.traceback"


def _remember(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        context.find_root().meta[_TRACEBACK] = True


def traceback_option(command: C) -> C:
    """Adds `--traceback` to a command."""
    return click.option(
        "--traceback", is_flag=True, expose_value=False, callback=_remember, help="Show the traceback of an error."
    )(command)


class VerbGroup(click.Group):
    """A group whose verbs end with one line of failure instead of a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the verb; failures become an exit code."""
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.ClickException, click.Abort):
            raise
        except (Exception, KeyboardInterrupt) as error:
            if ctx.meta.get(_TRACEBACK):
                say("".join(traceback.format_exception(error)))
            failure = failure_of(error)
            fail(failure.message)
            ctx.exit(int(failure.code))
