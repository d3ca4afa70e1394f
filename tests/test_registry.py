import subprocess
import sys
from types import SimpleNamespace

import pytest

from domainbed.errors import UnknownName
from domainbed.registry import Registry


@pytest.fixture
def registry():
    return Registry("Thing", first=("c", "a"))


def test_the_decorator_registers_under_the_objects_name_or_a_given_one(registry):
    @registry.register()
    def a():
        pass

    @registry.register("b")
    class Other:
        pass

    assert registry["a"] is a
    assert registry["b"] is Other


def test_names_are_listed_in_order_of_registration_after_the_first_ones(registry):
    for name in ("x", "a", "b", "c"):
        registry[name] = name
    assert list(registry) == ["c", "a", "x", "b"]
    assert registry.order(["unknown", "b", "x", "c", "b"]) == ["c", "x", "b", "unknown"]


def test_lazy_objects_are_imported_on_look_up():
    code = (
        "import sys; from domainbed.registry import Registry; r = Registry('Thing')\n"
        "r.add_lazy('f', 'fractions:Fraction'); assert list(r) == ['f']\n"
        "assert 'fractions' not in sys.modules\n"
        "assert r['f'].__name__ == 'Fraction'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_error_for_a_misspelt_name_suggests_similar_ones(registry):
    registry["AgrSum"] = 1
    with pytest.raises(UnknownName, match="Thing not found: AgrSun") as info:
        registry["AgrSun"]
    assert info.value.__notes__ == ["Did you mean AgrSum?"]


def test_a_registry_is_a_mapping(registry):
    registry["a"] = 1
    assert "a" in registry
    assert "b" not in registry
    assert registry.get("b") is None
    del registry["a"]
    assert len(registry) == 0


def test_a_package_is_searched_without_importing_it(tmp_path, monkeypatch):
    package = tmp_path / "methods_of_a_plugin"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "first.py").write_text(
        "from registry_of_a_plugin import REGISTRY\n\n\n"
        "@REGISTRY.register()\nclass One:\n    pass\n\n\n"
        "@REGISTRY.register('two')\n@REGISTRY.register('deux')\ndef other():\n    pass\n"
    )
    (package / "second.py").write_text("raise ImportError('nothing is registered here')\n")
    registry = Registry("Thing", home="methods_of_a_plugin")
    monkeypatch.setitem(sys.modules, "registry_of_a_plugin", SimpleNamespace(REGISTRY=registry))
    monkeypatch.syspath_prepend(tmp_path)
    assert {"One", "two"} <= {*registry}
    assert "methods_of_a_plugin.first" not in sys.modules
    assert registry["One"].__name__ == "One"
    assert registry["two"] is registry["deux"]
