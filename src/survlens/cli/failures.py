"""From an exception to an exit code and one line."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """What the command line returns to the shell."""

    FINE = 0
    FAILURE = 1
    USAGE = 2
    DATA = 3
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Failure:
    """How a command ends that did not succeed.

    Attributes:
        code: Exit code.
        message: One line for the reader.
    """

    code: ExitCode
    message: str


def failure_of(error: BaseException) -> Failure:
    """How the command line ends on `error`."""
    from survlens.core.errors import DataError, SurvlensError, UsageError

    message = " ".join(str(error).split())
    if isinstance(error, KeyboardInterrupt):
        return Failure(ExitCode.INTERRUPTED, message or "interrupted; nothing was left half-written.")
    if isinstance(error, UsageError):
        return Failure(ExitCode.USAGE, message)
    if isinstance(error, DataError):
        return Failure(ExitCode.DATA, message)
    if isinstance(error, SurvlensError):
        return Failure(ExitCode.FAILURE, message)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" while writing {error.filename}" if error.filename else ""
        return Failure(
            ExitCode.FAILURE,
            f"the disk is full{where}. Free some space, then run the same command again (with --resume after `run`).",
        )
    if isinstance(error, OSError):
        return Failure(ExitCode.FAILURE, message)
    return Failure(
        ExitCode.FAILURE,
        f"unexpected {type(error).__name__}: {message or 'no message'}. "
        "This is a fault of survlens; repeat with --traceback and report what it prints.",
    )
