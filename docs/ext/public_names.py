"""Writes the API pages from the public names of each package, and reads docstrings as plain text.

Every package lists its public names in its `__init__` (`from survlens.x.y import Name as Name`). One page is written
per package, so a new public name needs no line here. Docstrings are plain text with `code` in single backticks: nothing
else in them is markup, so a formula may hold stars, bars and trailing underscores.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

from sphinx.application import Sphinx

import survlens

ORDER = (
    *("core", "data", "losses", "encoders", "generators", "heads", "models", "training"),
    *("evaluate", "explain", "report", "study", "artifacts", "blocks"),
)


def public_names(package: str) -> list[str]:
    """Names that the `__init__` of survlens.`package` imports as themselves, in its order."""
    module = importlib.import_module(f"survlens.{package}")
    tree = ast.parse(inspect.getsource(module))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return [alias.name for node in imports for alias in node.names if alias.asname == alias.name]


def _entry(package: str, name: str) -> list[str]:
    value = getattr(importlib.import_module(f"survlens.{package}"), name)
    path = f"survlens.{package}.{name}"
    if inspect.isclass(value):
        return [f".. autoclass:: {path}", "   :members:", ""]
    if inspect.isfunction(value):
        return [f".. autofunction:: {path}", ""]
    return [f".. autodata:: {path}", "   :no-value:", ""]


def _page(package: str) -> str:
    names = public_names(package)
    summary = (importlib.import_module(f"survlens.{package}").__doc__ or "").strip()
    title = f"survlens.{package}"
    lines = [title, "=" * len(title), "", _as_text(summary), "", f".. module:: {title}", ""]
    for name in names:
        lines += _entry(package, name)
    return "\n".join(lines)


def _write_if_changed(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def write_pages(app: Sphinx) -> None:
    """Writes docs/api before Sphinx looks for its sources."""
    folder = Path(app.srcdir) / "api"
    folder.mkdir(exist_ok=True)
    found = [package.name for package in pkgutil.iter_modules(survlens.__path__) if package.ispkg]
    packages = [name for name in ORDER if name in found]
    packages += [name for name in found if name not in ORDER]
    packages = [name for name in packages if public_names(name)]
    for package in packages:
        _write_if_changed(folder / f"{package}.rst", _page(package))
    for stale in {path.stem for path in folder.glob("*.rst")} - {*packages, "index"}:
        (folder / f"{stale}.rst").unlink()
    toctree = "\n".join(f"   {package}" for package in packages)
    text = f"Reference\n=========\n\nThe public names of every package.\n\n.. toctree::\n   :maxdepth: 1\n\n{toctree}\n"
    _write_if_changed(folder / "index.rst", text)


_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_MARKUP = re.compile(r"(?<!\\)([*|])|(?<=\w)(_)(?!\w)")


def _as_text(line: str) -> str:
    """One line of a docstring as reStructuredText: `code` is code, and nothing else is markup."""
    parts = _CODE.split(line)
    plain, code = parts[::2], parts[1::2]
    plain = [_MARKUP.sub(lambda match: "\\" + match.group(0), part) for part in plain]
    joined = [plain[0]]
    for inside, after in zip(code, plain[1:], strict=True):
        joined += [f"``{inside}``", "\\ " if re.match(r"\w", after) else "", after]
    return "".join(joined)


def read_as_text(_app: Sphinx, _what: str, _name: str, _value: object, _options: object, lines: list[str]) -> None:
    """Prepares a docstring before napoleon reads its sections."""
    if any(line.lstrip().startswith(">>>") for line in lines):
        return
    lines[:] = [_as_text(line) for line in lines]


def read_types_as_text(
    _app: Sphinx, _what: str, _name: str, _value: object, _options: object, lines: list[str]
) -> None:
    """After napoleon: an axis such as "*stratum" in the type of an attribute is not the start of emphasis."""
    lines[:] = [line.replace("*", "\\*") if line.lstrip().startswith(":vartype") else line for line in lines]


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers all three."""
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-process-docstring", read_as_text, priority=100)
    app.connect("autodoc-process-docstring", read_types_as_text, priority=900)
    return {"parallel_read_safe": True}
