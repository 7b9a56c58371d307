"""The house rules that no other tool checks."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "survlens"
FILES = sorted(SOURCE.rglob("*.py"))
LONGEST_FILE = 450
NAMELESS = {"utils", "util", "helpers", "helper", "common", "base", "misc", "tools"}
LAZY = {"monai", "lightning", "lightning_fabric", "sksurv", "lifelines", "matplotlib", "pydicom", "nibabel"}
NAME_TABLES = {"cli", "study"}


def test_the_source_is_found() -> None:
    assert len(FILES) > 20


@pytest.fixture(scope="module")
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def _where(path: Path, node: ast.AST | None = None) -> str:
    line = "" if node is None else f":{getattr(node, 'lineno', 0)}"
    return f"{path.relative_to(ROOT).as_posix()}{line}"


def test_every_module_is_named_after_a_subject() -> None:
    parts = {part for path in FILES for part in path.relative_to(SOURCE).with_suffix("").parts}
    assert not parts & NAMELESS


def test_no_file_outgrows_its_subject() -> None:
    lengths = {_where(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {path: length for path, length in lengths.items() if length > LONGEST_FILE} == {}


def test_nothing_is_asserted_or_printed(trees: dict[Path, ast.Module]) -> None:
    def breaks(node: ast.AST) -> bool:
        printed = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        return printed or isinstance(node, ast.Assert)

    assert [_where(path, node) for path, tree in trees.items() for node in ast.walk(tree) if breaks(node)] == []


def _repository_texts() -> Iterator[Path]:
    folders = ("src", "tests", "docs", "benchmarks", "examples", ".ci")
    endings = {".py", ".md", ".toml", ".html", ".j2", ".css", ".json", ".txt", ".cff", ".yaml", ".bib", ""}
    yield from (path for path in ROOT.iterdir() if path.is_file() and path.suffix in endings)
    for folder in folders:
        for path in (ROOT / folder).rglob("*"):
            built = {"__pycache__", "_build", "api"} & set(path.relative_to(ROOT).parts)
            if path.is_file() and path.suffix in endings and not built:
                yield path


def test_no_path_of_a_machine_is_written_down() -> None:
    absolute = re.compile(r"(?<![\w.<:/])/(?:work|root|home|Users|tmp|mnt|opt|scratch)/\w")
    found = [
        f"{_where(path)}:{number}"
        for path in _repository_texts()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="ignore").splitlines(), 1)
        if absolute.search(line)
    ]
    assert found == []


def _asks_for_a_name(node: ast.AST) -> bool:
    """Is this `name == "..."`, or the same for a method or mode?"""
    if not isinstance(node, ast.Compare) or not all(isinstance(operator, ast.Eq | ast.NotEq) for operator in node.ops):
        return False
    sides = [node.left, *node.comparators]
    text = any(isinstance(side, ast.Constant) and isinstance(side.value, str) and side.value for side in sides)
    name = re.compile(r"(?:\w+_)?(?:name|method|mode)")
    named = any(isinstance(side, ast.Name) and name.fullmatch(side.id) for side in sides)
    return text and named


def _branches_on_a_name(node: ast.AST) -> bool:
    """Does this statement choose what to do by a string? Leaving an entry out of a dictionary is no choice."""
    if isinstance(node, ast.Match):
        patterns = [part.value for part in ast.walk(node) if isinstance(part, ast.MatchValue)]
        return any(isinstance(value, ast.Constant) and isinstance(value.value, str) for value in patterns)
    return isinstance(node, ast.If | ast.IfExp) and any(_asks_for_a_name(part) for part in ast.walk(node.test))


def test_names_are_strings_only_in_the_name_tables(trees: dict[Path, ast.Module]) -> None:
    found = [
        _where(path, node)
        for path, tree in trees.items()
        if path.relative_to(SOURCE).parts[0] not in NAME_TABLES
        for node in ast.walk(tree)
        if _branches_on_a_name(node)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("code", "branches"),
    [
        ('if name == "cox": pass', True),
        ('x = 1 if head_name != "cox" else 2', True),
        ('match kind:\n  case "cox": pass', True),
        ('x = {n: v for n, v in y if n != "cox"}', False),
        ("if name == other: pass", False),
    ],
)
def test_the_rule_on_names_finds_what_it_forbids(code: str, branches: bool) -> None:
    assert any(_branches_on_a_name(node) for node in ast.walk(ast.parse(code))) is branches


def _imports_at_import_time(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """Modules imported when the file is: outside functions and outside `if TYPE_CHECKING`."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node, node.module
        waiting.extend(ast.iter_child_nodes(node))


def test_heavy_libraries_are_imported_where_they_are_used(trees: dict[Path, ast.Module]) -> None:
    found = [
        f"{_where(path, node)} {module}"
        for path, tree in trees.items()
        for node, module in _imports_at_import_time(tree)
        if module.split(".")[0] in LAZY
    ]
    assert found == []


def test_modules_import_from_the_defining_module(trees: dict[Path, ast.Module]) -> None:
    """`from survlens.core import SurvivalOutcome` is for users: inside the house it makes import circles."""
    found = []
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if path.name == "__init__.py" or not isinstance(node, ast.ImportFrom) or not node.module:
                continue
            folder = ROOT / "src" / Path(*node.module.split("."))
            if node.module.split(".")[0] != "survlens" or not folder.is_dir():
                continue
            strangers = [
                alias.name
                for alias in node.names
                if alias.name != "__version__"
                and not (folder / f"{alias.name}.py").exists()
                and not (folder / alias.name).is_dir()
            ]
            found += [f"{_where(path, node)} {name}" for name in strangers]
    assert found == []


def test_settings_stay_few(trees: dict[Path, ast.Module]) -> None:
    """No public function or method takes `**kwargs`; what is nested in a function is its own business."""

    def members(owner: ast.Module | ast.ClassDef) -> Iterator[ast.FunctionDef]:
        for node in owner.body:
            if isinstance(node, ast.ClassDef):
                yield from members(node)
            elif isinstance(node, ast.FunctionDef):
                yield node

    found = [
        _where(path, node)
        for path, tree in trees.items()
        for node in members(tree)
        if not node.name.startswith("_") and node.args.kwarg
    ]
    assert found == []
