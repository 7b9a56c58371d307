"""Writing a file so that it is either the old one or the whole new one, never half of it."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Callable
from pathlib import Path

from survlens.core.errors import SurvlensError


class WriteError(SurvlensError, OSError):
    """A file could not be written; what stood there before is untouched."""


def write_atomically(path: Path | str, write: Callable[[Path], object]) -> None:
    """Writes a new file beside `path`, then puts it in place of `path` in one step.

    A crash, a kill or a full disk at any moment leaves the previous file whole.

    Args:
        path: File to write; its folder is made where it is missing.
        write: Writes the content to the path it is given.

    Raises:
        WriteError: If the disk is full or the folder cannot be written.
    """
    path = Path(path)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(draft)
        _flush(draft)
        os.replace(draft, path)
    except OSError as error:
        raise WriteError(error.errno, _message(path, error)) from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def write_bytes(path: Path | str, content: bytes) -> None:
    """Writes bytes in one step; see `write_atomically`."""
    write_atomically(path, lambda draft: draft.write_bytes(content))


def write_text(path: Path | str, content: str) -> None:
    """Writes UTF-8 text with Unix line ends in one step; see `write_atomically`."""
    write_bytes(path, content.encode("utf-8"))


def _flush(draft: Path) -> None:
    with draft.open("rb+") as file:
        os.fsync(file.fileno())


def _message(path: Path, error: OSError) -> str:
    kept = "The previous file is untouched." if path.exists() else "Nothing was written."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"`{path}` must fit on the disk; the disk is full. {kept} Free some space, then run the same command again."
        )
    return f"`{path}` must be writable; got {error.strerror or error}. {kept} Choose a folder that you may write to."
