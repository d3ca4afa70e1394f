"""The functions of `domainbed`: their arguments, their names, and when they are imported."""

import inspect
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import domainbed
from domainbed.scripts import collect_results
from domainbed.sweep.api import NOT_IN_PYTHON
from domainbed.sweep.flags import FLAGS, SweepFlags

ROOT = Path(__file__).parents[1]


def test_an_argument_of_python_for_each_flag_of_sweep():
    parameters = inspect.signature(domainbed.launch_sweep).parameters
    own = {field.name for field in fields(SweepFlags)} - {*NOT_IN_PYTHON, "seed"}
    assert own <= {*parameters}
    assert {*parameters} - {"config", "preset", "settings"} <= {*FLAGS}
    documented = inspect.getdoc(domainbed.launch_sweep)
    assert not [name for name in parameters if f"\n    {name}: " not in documented]


@pytest.mark.parametrize("function", [domainbed.collect, domainbed.report])
def test_an_argument_of_python_for_each_flag_of_collect_results(function):
    names = {*inspect.signature(function).parameters} - {"frame", "options"}
    flags = {action.dest for action in collect_results.build_parser()._actions}
    assert names <= flags
    assert {"input_dir", "selection", "metric", "over_targets", "where", "by", "target_sets"} <= names


def test_the_functions_are_imported_on_first_use_only():
    code = (
        "import sys, domainbed; assert {'collect', 'launch_sweep', 'report'} <= {*dir(domainbed)}; "
        "heavy = [name for name in ('torch', 'pandas', 'domainbed.sweep', 'domainbed.results') "
        "if name in sys.modules]; assert not heavy, heavy; assert callable(domainbed.collect)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    with pytest.raises(AttributeError, match="module 'domainbed' has no attribute 'colect'"):
        domainbed.colect  # noqa: B018


@pytest.mark.parametrize("name", domainbed.__all__)
def test_no_function_has_the_name_of_a_module(name):
    folder = Path(domainbed.__file__).parent
    assert not (folder / name).exists()
    assert not (folder / f"{name}.py").exists()
