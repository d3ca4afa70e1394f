"""Hyper-parameters of a run that any algorithm may be given: which of its weights are handed out."""

from __future__ import annotations

from collections.abc import Mapping

from domainbed.errors import check_choice
from domainbed.hparams import OPTIONS, Hparam, Value, const

WEIGHT_AVERAGING = ("none", "sma", "swad")

OPTIONS["weight_averaging"] = Hparam(
    "none", const("none"), "what is evaluated and saved: none: the last weights; sma or swad: an average"
)
OPTIONS["sma_start"] = Hparam(
    600, const(600), "sma: update at which the average starts; half the run, if that is sooner", at_least=1
)
OPTIONS["swad_n_s"] = Hparam(
    3, const(3), "swad: checkpoints without a lower loss that open the valley", at_least=1
)
OPTIONS["swad_n_e"] = Hparam(
    6, const(6), "swad: checkpoints above the tolerance in a row that end it", at_least=1
)
OPTIONS["swad_r"] = Hparam(
    0.3, const(0.3), "swad: tolerance, as a share of the valley's first losses (VLCS: 0.2)", at_least=0
)


def averaging_option(hparams: Mapping[str, Value], name: str) -> Value:
    """The value that a run gives to one of the options above, or its default; UsageError if it is none."""
    value = OPTIONS[name].check(name, hparams.get(name, OPTIONS[name].default))
    if name == "weight_averaging":
        check_choice("hyper-parameter weight_averaging is", value, WEIGHT_AVERAGING)
    return value
