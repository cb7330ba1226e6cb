"""What is imported is declared, and what is declared has a tested version."""

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def requirements(*extras: str) -> dict[str, Requirement]:
    """Distributions that giblet with these extras declares, by name."""
    lines = PROJECT["dependencies"] + [line for extra in extras for line in EXTRAS[extra]]
    found = {
        canonicalize_name(requirement.name): requirement for requirement in map(Requirement, lines)
    }
    return {name: requirement for name, requirement in found.items() if name != "giblet"}


def imported(folder: Path) -> set[str]:
    """Top-level modules that the files of a folder import from elsewhere."""
    files = list(folder.rglob("*.py"))
    names = set()
    for node in (node for path in files for node in ast.walk(ast.parse(path.read_text()))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {path.stem for path in files} - {"giblet"}


@pytest.mark.parametrize(
    ("folder", "extras"),
    [("giblet", ["text", "encodec"]), ("tests", EXTRAS), ("benchmarks", EXTRAS)],
)
def test_what_is_imported_is_declared(folder, extras):
    modules = imported(ROOT / folder)
    distributions = packages_distributions()
    assert "numpy" in modules
    providers = {name: set(map(canonicalize_name, distributions.get(name, []))) for name in modules}
    missing = [name for name in modules if not providers[name] & requirements(*extras).keys()]
    assert not missing


def test_what_is_declared_has_a_tested_version():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    assert [str(pin) for pin in pins if [part.operator for part in pin.specifier] != ["=="]] == []
    versions = {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in pins}
    assert len(versions) == len(pins)
    declared = requirements(*EXTRAS)
    assert declared.keys() <= versions.keys()
    assert [
        str(asked) for name, asked in declared.items() if versions[name] not in asked.specifier
    ] == []
