"""Checks the array shapes written in signatures while the tests run: a pytest plugin.

`PYTHONPATH=tests pytest -p shape_check`, which is how `make tests` runs, decorates the functions and dataclasses that
name a shape (`Float[Tensor, "instance time"]`) as survlens is imported. It differs from jaxtyping's own import hook:

- A call is checked after it has returned, so a function that refuses a wrong shape with its own error is not overtaken.
- Only shapes are checked; tests may pass small stand-ins where a class is named.
- Functions without a shape stay as they are, which numba's compiled functions need.
"""

import ast
import re
import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, get_args

import numpy as np
import torch
from beartype import beartype
from jaxtyping import AbstractArray

PACKAGE = "survlens"
_SHAPE_WITHIN = re.compile(rb""",\s*["'][^"']*["']\s*,?\s*\]""")
"""Where a shape may stand: the second of two things in brackets, a string."""


def _names_a_shape(annotation: object) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, AbstractArray):
        return True
    return any(_names_a_shape(part) for part in get_args(annotation))


def shapes_only(function: Callable) -> Callable:
    """A type checker for `jaxtyping.jaxtyped`, which calls it for the arguments alone and for arguments and result."""
    if function.__annotations__.get("return") is Any:
        return function
    for name, annotation in function.__annotations__.items():
        if not _names_a_shape(annotation):
            function.__annotations__[name] = Any
    checked = beartype(function)

    def check(*args: object, **kwargs: object) -> object:
        if torch.compiler.is_compiling():  # the sizes are symbols, and to look at one makes it a number
            return function(*args, **kwargs)
        return checked(*map(_plain, args), **{name: _plain(value) for name, value in kwargs.items()})

    return check


def _plain(value: object) -> object:
    """The same array with int64 under its usual name: numpy has two C types for it, and jaxtyping knows one."""
    if isinstance(value, np.ndarray) and value.dtype == np.int64:
        return value.view(np.int64)
    return value


def _is_shape(node: ast.AST | None) -> bool:
    """Does this annotation hold `Dtype[array, "axes"]`?"""
    return node is not None and any(
        isinstance(part, ast.Subscript)
        and isinstance(part.slice, ast.Tuple)
        and len(part.slice.elts) == 2
        and isinstance(part.slice.elts[1], ast.Constant)
        and isinstance(part.slice.elts[1].value, str)
        for part in ast.walk(node)
    )


class _Decorate(ast.NodeTransformer):
    def _decorator(self, node: ast.AST) -> ast.expr:
        call = "__import__('jaxtyping').jaxtyped(typechecker=__import__('shape_check').shapes_only)"
        decorator = ast.parse(call, mode="eval").body
        for part in ast.walk(decorator):
            ast.copy_location(part, node)
        return decorator

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
        if any(_is_shape(annotation) for annotation in [node.returns, *(a.annotation for a in arguments)]):
            node.decorator_list.append(self._decorator(node))
        self.generic_visit(node)
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        is_dataclass = any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)
        if is_dataclass and any(
            isinstance(field, ast.AnnAssign) and _is_shape(field.annotation) for field in node.body
        ):
            node.decorator_list.insert(0, self._decorator(node))
        self.generic_visit(node)
        return node


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        """Compiles afresh what names a shape: a decorated module must not be kept on disk, nor taken from there."""
        source = Path(self.path).read_bytes()
        if not _SHAPE_WITHIN.search(source):
            return super().get_code(fullname)
        tree = _Decorate().visit(ast.parse(source, self.path))
        return compile(ast.fix_missing_locations(tree), self.path, "exec", dont_inherit=True)


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name.split(".")[0] != PACKAGE:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def install() -> None:
    """Checks shapes in every survlens module imported from now on."""
    early = [name for name in sys.modules if name.split(".")[0] == PACKAGE]
    if early:
        raise RuntimeError(f"shapes must be checked before survlens is imported; got {early} already there.")
    sys.meta_path.insert(0, _Finder())


def pytest_load_initial_conftests() -> None:
    """Runs before any conftest, so before anything of survlens."""
    install()
