"""Records of methods that reports compare."""

import numpy as np
import pytest


@pytest.fixture
def three_methods(sweep):
    """Ten trials of ERM, AgrSum (better) and PCGrad (equivalent) on four targets."""
    rng = np.random.default_rng(4)
    shared = rng.normal(0.5, 0.02, (4, 10))

    def method(gain):
        accuracies = np.round((shared + gain + rng.normal(0, 0.005, shared.shape)) * 500) / 500
        return {target: accuracies[target].tolist() for target in range(4)}

    return sweep({"ERM": method(0), "AgrSum": method(0.04), "PCGrad": method(0)})
