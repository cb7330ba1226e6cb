import importlib

import pytest


@pytest.mark.parametrize("package", ["alignment", "data", "models", "training"])
def test_all_is_what_the_package_shows(package):
    module = importlib.import_module(f"giblet.{package}")
    assert sorted(module.__all__) == module.__all__
    public = {name for name, value in vars(module).items() if not name.startswith("_") and hasattr(value, "__doc__")}
    modules = {name for name in public if type(vars(module)[name]).__name__ == "module"}
    assert set(module.__all__) == public - modules
    assert all(vars(module)[name].__doc__ for name in module.__all__)
