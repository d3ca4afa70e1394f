"""A trained model, or several whose probabilities are averaged."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from domainbed.errors import RunError, UsageError
from domainbed.escaping import visible
from domainbed.inference.features import FeatureRecorder
from domainbed.inference.image_inputs import ImageLike, InputReader, as_list, is_input
from domainbed.inference.read_ahead import in_batches
from domainbed.seeds import Purpose, counter_seed, seed_all
from domainbed.training.acceleration import compute_in_bfloat16
from domainbed.training.evaluation import BATCH_SIZE
from domainbed.training.model_file import SavedModel

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Predictions:
    """What a model predicts for N images.

    Attributes:
        classes: names of the C classes.
        labels: the predicted class of each image, an index into `classes`, (N,) int64.
        probabilities: probability of each class, (N, C) float32.
        features: outputs of the featurizer, (N, D) float32, if they were asked for.
    """

    classes: tuple[str, ...]
    labels: Array
    probabilities: Array
    features: Array | None = None

    @property
    def names(self) -> list[str]:
        """Name of the predicted class of each image."""
        return [self.classes[label] for label in self.labels]


class Member:
    """One trained algorithm on its device.

    Args:
        saved: the model as its file has it.
        device: where it computes.
        keep_truncated: see `InputReader`.

    Attributes:
        saved, device: see above.
        algorithm: the algorithm.
        transform: a function from an image to an input of the network (C, S, S) float32.
    """

    def __init__(self, saved: SavedModel, device: torch.device, keep_truncated: bool) -> None:
        self.saved = saved
        self.device = device
        self.algorithm = saved.algorithm.to(device)
        self.transform = InputReader(saved.preprocessing, saved.input_shape, keep_truncated)
        self._precision = saved.args.get("precision", "fp32")
        if self._precision == "bf16":
            compute_in_bfloat16(self.algorithm)

    def logits(self, x: Tensor, start: int) -> Tensor:
        """Logits (B, C) of inputs (B, *input_shape), on the CPU. `start` seeds draws of the algorithm."""
        seed = int(self.saved.args.get("seed", 0))
        draws = _own_draws(counter_seed(seed, Purpose.PREDICTION, start), self.device)
        with torch.no_grad(), draws, _tf32(self._precision == "tf32", self.device):
            return self.algorithm.predict(x.to(self.device)).float().cpu()


class Model:
    """One trained model, or several of the same classes whose probabilities are averaged.

    Args:
        members: the models.

    Attributes:
        members: see above.
        classes: names of the classes, in the order of the labels.

    Raises: UsageError if the classes differ.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members
        first = members[0].saved
        self.classes: tuple[str, ...] = first.class_names or ()
        for each in members[1:]:
            if each.saved.class_names != first.class_names:
                others = [visible(", ".join(member.saved.class_names or ())) for member in (members[0], each)]
                raise UsageError(
                    f"models of different classes cannot be averaged: {others[0]} and {others[1]}"
                )
        transforms = {each.saved.preprocessing: each.transform for each in members}
        self._transforms = list(transforms.values())
        self._transform_of = [list(transforms).index(each.saved.preprocessing) for each in members]

    @property
    def transform(self) -> Callable[[ImageLike], Tensor]:
        """A function from an image to an input of the network (C, S, S) float32.

        Raises: UsageError for several models with different preprocessing.
        """
        if len(self._transforms) > 1:
            raise UsageError(
                "the models have different preprocessing; use the transform of each of `members`"
            )
        return self._transforms[0]

    def predict(
        self, images: ImageLike | Iterable[ImageLike], features: bool = False, batch_size: int = BATCH_SIZE
    ) -> Predictions:
        """Predict the classes of images.

        Args:
            images: one image, several, or a batch as an array (N, H, W, C) uint8 or a tensor (N, C, H, W)
                uint8. An image is a path, a PIL image, an array or a tensor (see `ImageLike`). Floats are
                inputs of the network, which are preprocessed already.
            features: also return the outputs of the featurizer. Only for a single model.
            batch_size: number of images that are computed at once.

        Raises: UsageError for something that is no image; RunError for a file that cannot be read.
        """
        parts = list(self.batches(as_list(images), features, batch_size))
        return Predictions(
            classes=self.classes,
            labels=np.concatenate([each.labels for each in parts]),
            probabilities=np.concatenate([each.probabilities for each in parts]),
            features=np.concatenate([each.features for each in parts if each.features is not None])
            if features
            else None,
        )

    def batches(
        self, images: Sequence[ImageLike], features: bool = False, batch_size: int = BATCH_SIZE
    ) -> Iterator[Predictions]:
        """The predictions for each batch of `images`. Arguments are those of `predict`."""
        if features and len(self.members) > 1:
            raise UsageError("features are those of one model; name a single one")
        if len(self._transforms) > 1 and any(map(is_input, images)):
            raise UsageError(
                "the models have different preprocessing, so that floats cannot be inputs of all; pass images"
            )

        def read(image: ImageLike) -> list[Tensor]:
            return [transform(image) for transform in self._transforms]

        start = 0
        with contextlib.closing(in_batches(read, images, batch_size)) as loaded:
            for inputs in loaded:
                batch = [torch.stack(each) for each in zip(*inputs, strict=True)]
                try:
                    yield self._compute(batch, features, start)
                except (MemoryError, torch.OutOfMemoryError) as error:
                    reason = str(error).split(".", maxsplit=1)[0]
                    raise RunError(f"out of memory ({reason}); use a smaller batch size") from error
                start += len(inputs)

    def _compute(self, batch: Sequence[Tensor], features: bool, start: int) -> Predictions:
        """Predictions for one batch, given its inputs (B, *input_shape) for each preprocessing."""
        recorder = FeatureRecorder(self.members[0].algorithm) if features else contextlib.nullcontext()
        with recorder:
            logits = [
                member.logits(batch[number], start)
                for member, number in zip(self.members, self._transform_of, strict=True)
            ]
        probabilities = torch.stack([_probabilities(each) for each in logits]).mean(0)
        # In one model's probabilities, logits that differ may be equal.
        scores = logits[0] if len(logits) == 1 and logits[0].shape[1] > 1 else probabilities
        return Predictions(
            classes=self.classes,
            labels=scores.argmax(1).numpy(),
            probabilities=probabilities.float().numpy(),
            features=recorder.features(len(batch[0])) if isinstance(recorder, FeatureRecorder) else None,
        )


def _probabilities(logits: Tensor) -> Tensor:
    """(N, C) float64. A single column (N, 1) is the logit of the second of two classes."""
    logits = logits.double()
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
    return logits.softmax(1)


@contextlib.contextmanager
def _own_draws(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators, and restore them at the end. A few algorithms draw when they predict."""
    states = random.getstate(), np.random.get_state()
    is_cpu = device.type == "cpu"
    with torch.random.fork_rng([] if is_cpu else [device], device_type="cuda" if is_cpu else device.type):
        seed_all(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


@contextlib.contextmanager
def _tf32(allowed: bool, device: torch.device) -> Iterator[None]:
    """Allow TF32 on a GPU, or not, and restore the settings at the end."""
    is_gpu = device.type == "cuda"
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn) if is_gpu else ()
    before = [each.allow_tf32 for each in backends]
    try:
        for each in backends:
            each.allow_tf32 = allowed
        yield
    finally:
        for each, value in zip(backends, before, strict=True):
            each.allow_tf32 = value
