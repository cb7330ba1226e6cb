"""What giblet and its wings show is what their stubs declare, and it is explained."""

import ast
import importlib
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

import giblet

WINGS = ("alignment", "analysis", "data", "models", "plotting", "training")
PACKAGES = ("giblet", *(f"giblet.{wing}" for wing in WINGS), "giblet.data.simulation")


def declared(package: str) -> list[str]:
    """Names that the stub of a package imports."""
    stub = Path(importlib.import_module(package).__file__).with_suffix(".pyi")
    imports = [
        node for node in ast.parse(stub.read_text()).body if isinstance(node, ast.ImportFrom)
    ]
    return [alias.asname for node in imports for alias in node.names]


@pytest.mark.parametrize("package", PACKAGES)
def test_all_is_what_the_stub_declares(package):
    shown = importlib.import_module(package).__all__
    assert sorted(shown) == shown
    assert shown == sorted(declared(package))
    assert len(set(shown)) == len(shown) > 0


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_is_there_and_explained(package):
    """A constant has no docstring, and that of a data class is not only its arguments."""
    module = importlib.import_module(package)
    for name in module.__all__:
        value = getattr(module, name)
        assert name in dir(module)
        if not name.isupper():
            assert value.__doc__, name
            assert not value.__doc__.startswith(f"{name}("), name


def test_the_face_names_all_it_shows():
    named = set(re.findall(r"\w+", giblet.__doc__))
    assert set(giblet.__all__) - set(WINGS) <= named
    assert set(WINGS) <= set(giblet.__all__)


def test_version_is_that_of_the_installation():
    assert giblet.__version__ == importlib.metadata.version("giblet")


def test_import_loads_what_is_used_and_no_more():
    """Also not torch, which reads the settings of giblet when it is loaded."""
    program = "import sys, giblet; print([name in sys.modules for name in ('torch', 'numpy')])"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[False, False]"


def test_name_that_is_not_there_is_said():
    with pytest.raises(AttributeError, match="No giblet attribute nothing"):
        giblet.nothing  # noqa: B018
