"""Hyper-parameters that all runs of a sweep share, where only some runs read them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from domainbed.errors import UsageError
from domainbed.hparams import parse_overrides
from domainbed.sweep.job import Job
from domainbed.training.config import TrainConfig
from domainbed.training.hparam_readers import refuse_unread
from domainbed.training.run_hparams import known_hparams, unread_hparams

Kind = tuple[str | None, str | None, str | None]
"""Dataset, algorithm and `--hparams` of a run, which decide what it reads."""


def with_shared_hparams(args_of_runs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Arguments of runs, with `shared_hparams` set in those that do not read all of their `--hparams`.

    `check_shared` refuses hyper-parameters that no run reads.
    """
    needed: dict[Kind, bool] = {}
    found = []
    for args in args_of_runs:
        kind = _kind(args)
        if kind not in needed:
            needed[kind] = _needs_flag(args)
        found.append({**args, "shared_hparams": True} if needed[kind] else dict(args))
    return found


def _needs_flag(args: Mapping[str, Any]) -> bool:
    with contextlib.suppress(UsageError, TypeError):  # the run, or a check of the sweep, says what is wrong
        return args.get("hparams") is not None and bool(unread_hparams(TrainConfig(**args)))
    return False


def check_shared(text: str | None, jobs: Sequence[Job]) -> None:
    """Check that every hyper-parameter in `text`, the `--hparams` of a sweep, is read by some of its runs.

    One under the name of an algorithm has to be read by a run of that algorithm.

    Raises: UsageError, which names who would read it.
    """
    entries = parse_overrides(text)
    of_kind = {_kind(job.train_args): job for job in reversed(jobs)}
    configs = {kind: TrainConfig(**job.train_args) for kind, job in of_kind.items()}
    unread = {kind: unread_hparams(config) for kind, config in configs.items()}
    for name, value in entries.items():
        own = isinstance(value, dict)
        for each in value if isinstance(value, dict) else [name]:
            kinds = [kind for kind in configs if not own or kind[1] == name]
            if kinds and all(each in unread[kind] for kind in kinds):
                refuse_unread({each: unread[kinds[0]][each]}, known_hparams(configs[kinds[0]]))


def _kind(args: Mapping[str, Any]) -> Kind:
    return args.get("dataset"), args.get("algorithm"), args.get("hparams")
