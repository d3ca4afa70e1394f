import importlib
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import pytest

from domainbed.errors import NameConflict, UnknownName
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
        "r.add_lazy('f', 'colorsys:rgb_to_hls'); assert list(r) == ['f']\n"
        "assert 'colorsys' not in sys.modules\n"
        "assert r['f'].__name__ == 'rgb_to_hls'"
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


def module(name, registry, source):
    """Code of a module called `name` that sees `registry`, as imported, or imported again."""
    exec(textwrap.dedent(source), {"registry": registry, "__name__": name})


ERM = "@registry.register({})\nclass ERM:\n    HOME = __name__\n"


def test_two_modules_cannot_use_one_name_and_the_error_names_both(registry):
    module("baselines", registry, ERM.format(""))
    for source in (ERM.format(""), "registry['ERM'] = 3", "registry.update(ERM=3)"):
        with pytest.raises(
            NameConflict, match=r"Thing ERM is registered by baselines and by a_plugin; .*=True"
        ):
            module("a_plugin", registry, source)
    with pytest.raises(NameConflict, match="by baselines and by fractions"):
        registry.add_lazy("ERM", "fractions:Fraction")
    assert registry["ERM"].HOME == "baselines"
    module("baselines", registry, ERM.format(""))  # as importlib.reload and notebooks do


def test_a_replacement_says_so_and_is_known_by_its_module(registry):
    module("baselines", registry, ERM.format(""))
    module("a_plugin", registry, ERM.format("override=True"))
    assert registry["ERM"].HOME == "a_plugin"
    assert registry.replacement("ERM") == "a_plugin"
    module("baselines", registry, ERM.format(""))
    assert registry["ERM"].HOME == "a_plugin"
    for settings in ("", "override=True"):
        with pytest.raises(NameConflict, match="another_plugin"):
            module("another_plugin", registry, ERM.format(settings))
    del registry["ERM"]
    assert registry.replacement("ERM") is None
    module("another_plugin", registry, ERM.format(""))


def test_reloading_a_registrys_module_keeps_its_names(forked_python, tmp_path):
    code = """
        import importlib
        homes = {
            "domainbed.algorithms": "REGISTRY", "domainbed.datasets": "REGISTRY",
            "domainbed.networks.registry": "FEATURIZERS", "domainbed.training.splits": "SCHEMES",
            "domainbed.model_selection.rules": "METHODS", "domainbed.sweep.launchers": "REGISTRY",
            "domainbed.results.report": "SECTIONS", "domainbed.download": "SOURCES",
            "domainbed.hparams.values": "OPTIONS",
        }
        for home, name in homes.items():
            module = importlib.import_module(home)
            before = getattr(module, name)
            names = list(before)
            assert getattr(importlib.reload(module), name) is before, home
            assert names and list(before) == names, home
            print(home, type(before[names[0]]).__name__)
    """
    done = forked_python(["-c", textwrap.dedent(code)], tmp_path, {})
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 9


@pytest.mark.parametrize(("settings", "expected"), [("override=True", "a_plugin"), ("", None)])
def test_a_plugin_may_come_before_what_it_replaces(tmp_path, monkeypatch, settings, expected):
    package = tmp_path / "package_that_comes_later"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "erm.py").write_text("from registry_of_a_plugin import registry\n\n\n" + ERM.format(""))
    late = Registry("Thing", home=package.name)
    monkeypatch.setitem(sys.modules, "registry_of_a_plugin", SimpleNamespace(registry=late))
    monkeypatch.syspath_prepend(tmp_path)
    module("a_plugin", late, ERM.format(settings))
    if expected:
        assert list(late) == ["ERM"] == [late["ERM"].__name__]
        importlib.import_module("package_that_comes_later.erm")
        assert late["ERM"].HOME == "a_plugin"
        return
    for _ in range(2):
        with pytest.raises(NameConflict, match=r"by a_plugin and by package_that_comes_later\.erm"):
            list(late)
