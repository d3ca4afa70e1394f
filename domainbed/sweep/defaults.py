"""Defaults of settings, as they were when a sweep was launched first: all its runs have these.

sweep.json has them from the version after 0.1.0 on. Where today's default is another one, the commands of the
runs give the earlier value. The names of runs do not depend on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from domainbed.sweep.flags import PASSED_ON
from domainbed.sweep.manifest import Manifest
from domainbed.training.config import SETTINGS
from domainbed.training.run_settings import overrides_of

DEFAULTS_0_1_0: Mapping[str, Any] = {
    "data_dir": None,
    "task": "domain_generalization",
    "steps": None,
    "checkpoint_freq": None,
    "holdout_fraction": 0.2,
    "uda_holdout_fraction": 0,
    "skip_model_save": False,
    "splits": "holdout",
    "evaluate": "selection",
    "sampling": "replacement",
    "grouping": "domain",
    "precision": "fp32",
    "channels_last": False,
    "compile": False,
    "device": "auto",
    "num_workers": None,
    "cache_dir": None,
    "deterministic": False,
    "checkpoint_every": 5.0,
    "write_splits": None,
    "tensorboard": False,
}
"""Those of version 0.1.0, whose sweep.json does not have them. Settings that it lacks had `value_before`."""


def todays_defaults() -> dict[str, Any]:
    """Today's default of each setting that a sweep passes on to its runs, and of `earlier_swad`."""
    defaults = {name: setting.default for name, setting in PASSED_ON.items()}
    return {**defaults, "earlier_swad": SETTINGS["earlier_swad"].default}


def kept_defaults(manifest: Manifest | None) -> dict[str, Any]:
    """The defaults of a sweep that are not today's; none for a sweep that is launched for the first time."""
    if manifest is None:
        return {}
    first = manifest.defaults if manifest.defaults is not None else DEFAULTS_0_1_0
    then = {name: first.get(name, setting.value_before) for name, setting in PASSED_ON.items()}
    return {name: value for name, value in then.items() if value != PASSED_ON[name].default}


def with_earlier_swad(
    manifest: Manifest | None, args_of_runs: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Arguments of runs, with `earlier_swad` set in SWAD's runs of a sweep that is older than it."""
    if manifest is None or "earlier_swad" in (manifest.defaults or {}):
        return [dict(args) for args in args_of_runs]
    return [{**args, "earlier_swad": True} if _needs_counting(args) else dict(args) for args in args_of_runs]


def _needs_counting(args: Mapping[str, Any]) -> bool:
    """Whether a run averages by SWAD and no hyper-parameter says how it counts."""
    given = overrides_of(args)
    return given.get("weight_averaging") == "swad" and "swad_counting" not in given
