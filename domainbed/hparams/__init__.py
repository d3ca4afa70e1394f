"""Declarations of hyper-parameters: default, random draw, valid values, meaning and kind.

A class declares a table `name -> Hparam`. Where the values depend on the dataset, the entry is a function
of the dataset's name that returns the `Hparam`.
"""

from domainbed.hparams.declarations import (
    REFERENCE_STEPS,
    Declaration,
    Hparam,
    Kind,
    Limits,
    Reader,
    Table,
    merged_tables,
    resolve,
)
from domainbed.hparams.draws import (
    Constant,
    Described,
    Draw,
    Value,
    choice,
    const,
    log2_int,
    log10_int,
    log10_uniform,
    uniform,
    uniform_int,
)
from domainbed.hparams.values import (
    OPTIONS,
    SYNONYMS,
    HparamValues,
    option,
    override,
    parse_overrides,
    synonym_in,
    unknown,
)

__all__ = [
    "OPTIONS",
    "REFERENCE_STEPS",
    "SYNONYMS",
    "Constant",
    "Declaration",
    "Described",
    "Draw",
    "Hparam",
    "HparamValues",
    "Kind",
    "Limits",
    "Reader",
    "Table",
    "Value",
    "choice",
    "const",
    "log2_int",
    "log10_int",
    "log10_uniform",
    "merged_tables",
    "option",
    "override",
    "parse_overrides",
    "resolve",
    "synonym_in",
    "uniform",
    "uniform_int",
    "unknown",
]
