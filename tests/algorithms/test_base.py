"""The contract's class attributes."""

import numpy as np
import pytest
import torch

from domainbed.algorithms import ERM, Algorithm
from domainbed.algorithms.base import DeviceScalar
from domainbed.algorithms.update_count import AnnealedERM, UpdateCount


def subclass(*bases, **attributes):
    return type("Own", bases, attributes)


def own(self, *args):
    """Another update, or another prediction."""


class OtherUpdate:
    """A mixin, which is not an algorithm."""

    update = own


@pytest.mark.parametrize("overridden", ["update", "predict"])
def test_distributed_is_false_where_update_or_predict_is_overridden(overridden):
    assert ERM.DISTRIBUTED
    changed = subclass(ERM, **{overridden: own})
    assert not changed.DISTRIBUTED
    assert not subclass(changed).DISTRIBUTED
    assert subclass(ERM, **{overridden: own, "DISTRIBUTED": True}).DISTRIBUTED
    assert subclass(changed, DISTRIBUTED=True).DISTRIBUTED


def test_distributed_is_inherited_with_update_and_predict():
    assert subclass(ERM, HPARAMS={}, step=own).DISTRIBUTED
    assert subclass(UpdateCount, ERM).DISTRIBUTED
    assert AnnealedERM.DISTRIBUTED
    assert not subclass(ERM, DISTRIBUTED=False).DISTRIBUTED
    assert not Algorithm.DISTRIBUTED


def test_distributed_is_false_where_a_mixin_overrides_update():
    assert not subclass(OtherUpdate, ERM).DISTRIBUTED
    assert subclass(ERM, OtherUpdate).DISTRIBUTED  # ERM's update comes first
    changed = subclass(ERM, update=own)
    assert not subclass(changed, ERM).DISTRIBUTED


def test_a_device_scalar_converts_to_a_number():
    value = DeviceScalar(torch.tensor(1.5))
    assert float(value) == 1.5
    assert np.mean([value, 2.5]) == 2.0
