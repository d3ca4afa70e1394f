"""What a run is made of, for its output and its records."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from domainbed.datasets.reading_rules import text_of_counts
from domainbed.errors import UsageError
from domainbed.escaping import visible
from domainbed.hparams import option
from domainbed.networks.base import provenance_of
from domainbed.training.copies import describe_copies
from domainbed.training.run import Run


def describe(run: Run) -> Iterator[str]:
    """Lines about the data: skipped files, counts for each environment, and small minibatches.

    With `check_images`, every skipped file and folder has a line.
    """
    if not run.algorithm.TRAINS and run.n_steps > 1:
        yield f"{run.config.algorithm} trains nothing: --steps 1 gives the same accuracies."
    yield "Data:"
    if run.dataset.skipped is not None:
        skipped = text_of_counts(run.dataset.summary["skipped"])
        listed = "" if run.config.check_images or not skipped else "; --check_images lists them"
        yield f"\tfiles that are not read: {skipped or 'none'}{listed}"
        if run.config.check_images:
            yield from (f"\t\t{each.line()}" for each in run.dataset.skipped)
    yield from (f"\t{visible(note)}" for note in run.dataset.notes)
    yield from describe_copies(run.dataset.summary.get("copies", {}))
    for index, (name, counts) in enumerate(run.dataset.counts().items()):
        role = "target" if index in run.config.test_envs else "source"
        parts = ", ".join(f"{kind} {len(part)}" for kind, part in run.splits[index].items())
        classes = ", ".join(f"{label} {count}" for label, count in counts.items())
        if len(counts) > 10:
            classes = f"{len(counts)} classes, {min(counts.values())} to {max(counts.values())} images each"
        line = f"environment {index} ({name}, {role}): {sum(counts.values())} images ({classes}); {parts}"
        yield f"\t{visible(line)}"
    if adapted := provenance_of(run.algorithm).get("adapted"):
        yield f"\tinitial weights: {visible(adapted)}"
    if run.frozen.note:
        yield f"\tfrozen stages of the featurizer are {run.frozen.note}"
    for index, sampler in zip(run.sources, run.minibatches.samplers, strict=True):
        if sampler.batch_size < run.hparams["batch_size"]:
            yield (
                f"\tenvironment {index} has {sampler.size} training images, fewer than batch_size "
                f"{run.hparams['batch_size']}: its minibatches have {sampler.batch_size}"
            )


def replacements(run: Run) -> dict[str, str]:
    """What plugins have replaced (`register(override=True)`) of what the run uses.

    Returns: module of the plugin by "algorithm", "dataset" and "featurizer"; empty for most runs.
    """
    from domainbed import algorithms, datasets, networks
    from domainbed.networks.featurizer import by_shape

    featurizer = str(option(run.hparams, "featurizer"))
    if featurizer == "auto":
        with contextlib.suppress(UsageError):  # an algorithm may do without a featurizer
            featurizer = by_shape(tuple(run.dataset.input_shape), run.hparams)
    found = {
        "algorithm": algorithms.REGISTRY.replacement(run.config.algorithm),
        "dataset": datasets.REGISTRY.replacement(run.config.dataset),
        "featurizer": networks.FEATURIZERS.replacement(featurizer),
    }
    return {kind: module for kind, module in found.items() if module is not None}
