"""The split that a list file gives: `--splits list`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domainbed.datasets.list_file import PARTS, ListFileDataset
from domainbed.errors import UsageError

if TYPE_CHECKING:
    from domainbed.datasets.base import MultipleDomainDataset
    from domainbed.training.splits import Parts, SplitRequest


def by_list(dataset: MultipleDomainDataset, request: SplitRequest) -> list[Parts]:
    """Parts as the column `split` of a list file says; samples keep the list's order.

    Raises: UsageError for another dataset, a sample that the list gives to no part, or an environment
        without training samples.
    """
    from domainbed.datasets.splitting import SplitDataset

    if not isinstance(dataset, ListFileDataset):
        raise UsageError("--splits list needs a dataset that is a list of files with a column split")
    if request.options:
        raise UsageError(f"--splits list takes no options, not {':'.join(request.options)}")
    for row in dataset.ROWS:
        if not row.split:
            raise UsageError(f"{dataset.PATH}, line {row.line}: no split is given, which --splits list needs")
    environments = []
    for name, environment, parts in zip(dataset.ENVIRONMENTS, dataset.datasets, dataset.parts, strict=True):
        if "in" not in parts:
            raise UsageError(f"{dataset.PATH}: environment {name} has no samples with split in")
        keys = {part: [i for i, each in enumerate(parts) if each == part] for part in PARTS}
        environments.append({part: SplitDataset(environment, keys[part]) for part in PARTS if part in parts})
    return environments
