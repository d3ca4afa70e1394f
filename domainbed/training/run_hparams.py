"""The hyper-parameters of a run: which it may have, their values, and which ones nothing in it reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from domainbed import hparams_registry
from domainbed.hparams import (
    OPTIONS,
    REFERENCE_STEPS,
    Hparam,
    HparamValues,
    Table,
    Value,
    option,
    override,
    parse_overrides,
    resolve,
)
from domainbed.seeds import seed_hash
from domainbed.training.config import TrainConfig
from domainbed.training.hparam_readers import unread
from domainbed.training.run_state import read_json


def resolved_hparams(config: TrainConfig) -> HparamValues:
    """The hyper-parameters of a run: default or random ones, then the overrides.

    They are the algorithm's, the dataset's, and those of the featurizer that the overrides name. With
    `shared_hparams`, overrides that the run does not read are left out.

    Raises: UsageError for an unknown name, an invalid value or an unknown featurizer.
    """
    from domainbed import networks

    config.dataset_class()  # a plugin's may declare options in its module
    typed = parse_overrides(config.hparams)
    if config.shared_hparams:
        ignored = unread_hparams(config)
        typed = {name: value for name, value in typed.items() if name not in ignored}
    overrides = networks.options.with_preset(typed)
    overrides = hparams_registry.with_only_featurizer(config.algorithm, overrides)
    of_featurizer = hparams_registry.featurizer_table(str(option(overrides, "featurizer")))
    if config.hparams_seed == 0:
        hparams = hparams_registry.default_hparams(config.algorithm, config.dataset)
        pairs = hparams_registry.draw_pairs(of_featurizer, config.dataset, 0)
        more = {name: default for name, (default, _) in pairs.items()}
    else:
        seed = seed_hash(config.hparams_seed, config.trial_seed)
        hparams = hparams_registry.random_hparams(config.algorithm, config.dataset, seed)
        pairs = hparams_registry.draw_pairs(of_featurizer, config.dataset, seed)
        more = {name: value for name, (_, value) in pairs.items()}
    hparams = HparamValues({**more, **hparams})
    own = declared_hparams(config)
    if config.scale_warmups:
        factor = config.n_steps() / REFERENCE_STEPS
        for name in hparams.keys() & own.keys():
            hparams[name] = resolve(own[name], config.dataset).scaled(hparams[name], factor)
    override(hparams, overrides, known_hparams(config), config.dataset)
    if option(hparams, "weight_averaging") == "swad":
        hparams.setdefault("swad_counting", _swad_counting(config))
    if config.compile and "passes" in own:
        # A compiled network does not expose its layers to a joint pass.
        hparams["passes"] = "separate"
    return hparams


def _swad_counting(config: TrainConfig) -> Value:
    """How SWAD counts if no hyper-parameter says it: as the run began, or its sweep, else as today."""
    declared = OPTIONS["swad_counting"]
    begun = {} if config.restart else read_json(Path(config.output_dir, "run.json")) or {}
    if begun:
        found: Value = begun.get("hparams", {}).get("swad_counting", declared.value_before)
        return found
    return declared.value_before if config.earlier_swad else declared.default


def unread_hparams(config: TrainConfig) -> dict[str, str]:
    """The names in the `hparams` of a run that no part of the run reads -> why, as a clause."""
    from domainbed.networks.options import with_preset

    dataset_class, typed = config.dataset_class(), parse_overrides(config.hparams)
    overrides = hparams_registry.with_only_featurizer(config.algorithm, with_preset(typed))
    own = declared_hparams(config)
    return unread(config.algorithm, dataset_class, typed, overrides, own, optional_hparams())


def known_hparams(config: TrainConfig) -> Table:
    """Declarations of all hyper-parameters that the run may have, by name."""
    return {**optional_hparams(), **declared_hparams(config)}


def declared_hparams(config: TrainConfig) -> Table:
    """What the featurizer that `hparams` names, the dataset and the algorithm declare."""
    given = hparams_registry.with_only_featurizer(config.algorithm, parse_overrides(config.hparams))
    featurizer = str(option(given, "featurizer"))
    return {
        **hparams_registry.featurizer_table(featurizer),
        **hparams_registry.dataset_table(config.dataset),
        **hparams_registry.table(config.algorithm),
        **hparams_registry.switches(config.algorithm),
    }


def optional_hparams() -> Mapping[str, Hparam]:
    """Declarations of optional hyper-parameters that a run of any algorithm takes, by name."""
    from domainbed.training import averaging, initialization, swad  # noqa: F401 - they declare options

    return hparams_registry.options()
