"""What a run predicted: for each saved step and each part, a row for every sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from domainbed.errors import UsageError, misspelt

if TYPE_CHECKING:
    import pandas as pd

Arrays = dict[str, NDArray[Any]]
"""Arrays by name."""


@dataclass(frozen=True)
class PartPredictions:
    """Predictions for the N samples of one part of an environment, after one step.

    Attributes:
        name: name of the part, such as "env0_in".
        environment: index of the environment. Parts "env{i}_uda" are numbered by themselves, as in records.
        step: the last update before the predictions, counted from 0.
        num_classes: C.
        labels: (N,) int64.
        positions: (N,) int64, positions of the samples in the environment.
        images: (N,) paths of the image files, relative to the dataset's folder; None without files.
        predicted: (N,) int64, the predicted classes. The run decided them before it rounded anything.
        log_probabilities: (N, C) float16, or (N, K) for the classes in `classes`.
        classes: (N, K) int64; None if `log_probabilities` has all classes. Its last column is the label.
    """

    name: str
    environment: int
    step: int
    num_classes: int
    labels: NDArray[np.int64]
    positions: NDArray[np.int64]
    images: NDArray[Any] | None
    predicted: NDArray[np.int64]
    log_probabilities: NDArray[np.float16]
    classes: NDArray[np.int64] | None = None

    @property
    def identities(self) -> NDArray[Any]:
        """(N,) what identifies the samples in the environment: paths, or positions without files."""
        return self.positions if self.images is None else self.images

    def __len__(self) -> int:
        return len(self.labels)

    def require_all_classes(self, purpose: str) -> None:
        """Raise UsageError if only the most probable classes were saved, which `purpose` cannot do with."""
        if self.classes is not None:
            raise UsageError(
                f"{purpose} needs the probabilities of all {self.num_classes} classes, and of more than 100 "
                "classes a run saves only the 20 most probable ones"
            )

    def logits(self) -> NDArray[np.float32]:
        """(N, C) log-probabilities, in which the largest of each row is that of the predicted class.

        Rounding to float16 can make classes equal; then the predicted one is raised by the smallest amount.
        If only some classes were saved, the others share the remaining probability equally.
        """
        logits = self.log_probabilities.astype(np.float32)
        if self.classes is not None:
            logits = self._with_rest(logits)
        rows = np.arange(len(self))
        wrong = logits.argmax(1) != self.predicted if len(self) else np.zeros(0, dtype=bool)
        best = logits.max(1, initial=-np.inf)
        logits[rows[wrong], self.predicted[wrong]] = np.nextafter(best[wrong], np.float32(np.inf))
        return logits

    def _with_rest(self, kept: NDArray[np.float32]) -> NDArray[np.float32]:
        assert self.classes is not None
        rows = np.arange(len(self))[:, None]
        logits = np.full((len(self), self.num_classes), np.nan, dtype=np.float32)
        logits[rows, self.classes] = kept
        unknown = np.ones(logits.shape, dtype=bool)
        unknown[rows, self.classes] = False
        rest = 1 - np.exp(np.where(unknown, -np.inf, logits)).sum(1)
        with np.errstate(divide="ignore"):
            share = np.log(np.maximum(rest, 0) / np.maximum(unknown.sum(1), 1))
        return np.where(unknown, np.minimum(share, kept[:, -2])[:, None], logits).astype(np.float32)

    def at(self, rows: NDArray[Any]) -> PartPredictions:
        """The predictions for the samples in `rows`: indices, or a mask (N,)."""
        return replace(
            self,
            labels=self.labels[rows],
            positions=self.positions[rows],
            images=None if self.images is None else self.images[rows],
            predicted=self.predicted[rows],
            log_probabilities=self.log_probabilities[rows],
            classes=None if self.classes is None else self.classes[rows],
        )


@dataclass(frozen=True)
class Predictions:
    """The predictions that one run saved.

    Attributes:
        path: the file.
        about: the run and what was saved (see `domainbed.predictions.file.About`).
        read: reads a part after a step; use `part`.
    """

    path: Path
    about: Mapping[str, Any]
    read: Callable[[Mapping[str, Any], str, int], PartPredictions]

    @property
    def steps(self) -> list[int]:
        """The saved steps, in ascending order."""
        return list(self.about["steps"])

    @property
    def parts(self) -> list[str]:
        """Names of the parts, such as "env0_in"."""
        return list(self.about["parts"])

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of the labels."""
        return list(self.about["classes"])

    def step_of(self, step: int | str | None = None) -> int:
        """A saved step.

        Args:
            step: the step itself, the name of a selection rule for the one that it selects, or None for the
                last.

        Raises: UsageError if it was not saved.
        """
        saved = ", ".join(map(str, self.steps)) or "none"
        if not self.steps:
            raise UsageError(f"{self.path} has no predictions: no selection rule selects a step of the run")
        if step is None:
            return self.steps[-1]
        if isinstance(step, str):
            selected = self.about["selected"]
            if step not in selected:
                raise misspelt(
                    f"{self.path} does not know the step that rule {step!r} selects", step, selected
                )
            step = int(selected[step])
        if step not in self.steps:
            raise UsageError(
                f"{self.path} has no predictions of step {step} (saved steps: {saved}); use "
                "--save_predictions all"
            )
        return step

    def part(self, name: str, step: int | str | None = None) -> PartPredictions:
        """Predictions for the part `name`, such as "env0_in", after a step (see `step_of`).

        Raises: UsageError if the part or the step was not saved.
        """
        if name not in self.parts:
            raise misspelt(f"{self.path} has no part {name!r}", name, self.parts)
        return self.read(self.about, name, self.step_of(step))

    def environment(self, index: int, step: int | str | None = None) -> list[PartPredictions]:
        """Predictions for all saved parts of an environment after a step (see `step_of`)."""
        return [self.part(name, step) for name, number in self.about["parts"].items() if number == index]

    def frame(self, steps: Iterable[int | str] | None = None, probabilities: bool = False) -> pd.DataFrame:
        """The predictions as a frame with a row for each sample of each part and step.

        Args:
            steps: the steps (see `step_of`); by default all that were saved.
            probabilities: add a column `log_probability.CLASS` for each class.

        Returns: columns `step`, `environment` (its index), `environment_name`, `part`, `image` (path of the
            file or position in the environment), `label`, `predicted`, `label_name`, `predicted_name`,
            `correct`, and `log_probability`, that of the label, float32.

        Raises: UsageError if a step was not saved, or probabilities were asked for and not all were saved.
        """
        import pandas as pd

        chosen = self.steps if steps is None else [self.step_of(step) for step in steps]
        frames = [
            self._part_frame(self.part(name, step), probabilities) for step in chosen for name in self.parts
        ]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def _part_frame(self, part: PartPredictions, probabilities: bool) -> pd.DataFrame:
        import pandas as pd

        names = np.array(self.classes, dtype=object)
        column = part.labels if part.classes is None else np.full(len(part), -1)
        columns = {
            "step": part.step,
            "environment": part.environment,
            "environment_name": self.about["environments"][part.environment],
            "part": part.name.partition("_")[2],
            "image": part.identities,
            "label": part.labels,
            "predicted": part.predicted,
            "label_name": names[part.labels],
            "predicted_name": names[part.predicted],
            "correct": part.predicted == part.labels,
            "log_probability": part.log_probabilities[np.arange(len(part)), column].astype(np.float32),
        }
        if probabilities:
            part.require_all_classes("a column of probabilities for each class")
            saved = part.log_probabilities.astype(np.float32)
            columns |= {f"log_probability.{name}": saved[:, i] for i, name in enumerate(self.classes)}
        return pd.DataFrame(columns)
