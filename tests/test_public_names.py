"""Every name a user can import says what it is."""

import dataclasses
import importlib
import inspect
import pkgutil

import pytest

import survlens

PACKAGES = sorted(package.name for package in pkgutil.iter_modules(survlens.__path__) if package.ispkg)


def _public(package: str) -> dict[str, object]:
    module = importlib.import_module(f"survlens.{package}")
    names = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    return {
        name: value
        for name, value in names.items()
        if not inspect.ismodule(value) and getattr(value, "__module__", "").startswith("survlens")
    }


def _is_documented(value: object) -> bool:
    text = vars(value).get("__doc__") if inspect.isclass(value) else inspect.getdoc(value)
    generated = dataclasses.is_dataclass(value) and str(text).startswith(f"{getattr(value, '__name__', '')}(")
    return bool(text) and not generated


def _undocumented(package: str) -> list[str]:
    missing = []
    for name, value in _public(package).items():
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        if not _is_documented(value):
            missing.append(name)
        if inspect.isclass(value):
            members = {key: getattr(member, "__func__", member) for key, member in vars(value).items()}
            missing += [
                f"{name}.{key}"
                for key, member in members.items()
                if not key.startswith("_")
                and (inspect.isfunction(member) or isinstance(member, property))
                and not inspect.getdoc(member)
            ]
    return missing


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_has_a_docstring(package: str) -> None:
    assert _undocumented(package) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_says_what_it_is(package: str) -> None:
    assert (importlib.import_module(f"survlens.{package}").__doc__ or "").strip()
