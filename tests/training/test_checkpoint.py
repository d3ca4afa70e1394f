import os
import pickle
import random

import numpy as np
import pytest
import torch

from domainbed.errors import UsageError
from domainbed.training import checkpoint

CONTENT = {"step": 3, "weights": torch.arange(1000.0), "nested": {"list": [1, 2.5, "text"]}}


def test_save_and_load_keep_the_previous_checkpoint(tmp_path):
    assert checkpoint.load(tmp_path) is None
    checkpoint.save(tmp_path, CONTENT)
    checkpoint.save(tmp_path, CONTENT | {"step": 4})
    assert sorted(path.name for path in tmp_path.iterdir()) == [checkpoint.PREVIOUS, checkpoint.NAME]
    loaded = checkpoint.load(tmp_path)
    assert loaded["step"] == 4
    assert torch.equal(loaded["weights"], CONTENT["weights"])
    assert loaded["nested"] == CONTENT["nested"]
    checkpoint.remove(tmp_path)
    assert list(tmp_path.iterdir()) == []
    checkpoint.remove(tmp_path)


def test_a_truncated_checkpoint_falls_back_to_the_previous_one(tmp_path, caplog):
    checkpoint.save(tmp_path, CONTENT)
    checkpoint.save(tmp_path, CONTENT | {"step": 4})
    newest = tmp_path / checkpoint.NAME
    whole = newest.read_bytes()
    for length in np.random.default_rng(0).integers(len(whole), size=20):
        newest.write_bytes(whole[:length])
        assert checkpoint.load(tmp_path)["step"] == 3
        assert f"cannot use checkpoint {newest}" in caplog.text
    (tmp_path / checkpoint.PREVIOUS).write_bytes(b"")
    assert checkpoint.load(tmp_path) is None


def test_a_flipped_bit_in_the_weights_is_detected(tmp_path, caplog):
    checkpoint.save(tmp_path, CONTENT)
    newest = tmp_path / checkpoint.NAME
    content = bytearray(newest.read_bytes())
    at = content.index(np.float32(500).tobytes())
    content[at + 3] ^= 1
    newest.write_bytes(content)
    assert checkpoint.load(tmp_path) is None
    assert "cannot use checkpoint" in caplog.text


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("write", [pickle.dump, torch.save])
def test_a_checkpoint_that_would_execute_code_is_not_used(tmp_path, write, caplog):
    with (tmp_path / checkpoint.NAME).open("wb") as file:
        write({"version": 1, "algorithm": Malicious(tmp_path / "made")}, file)
    assert checkpoint.load(tmp_path) is None
    assert not (tmp_path / "made").exists()
    assert "cannot use checkpoint" in caplog.text


def test_a_checkpoint_of_another_layout_is_refused(tmp_path):
    torch.save({"version": 0}, tmp_path / checkpoint.NAME)
    with pytest.raises(
        UsageError, match=r"its layout is 0, not 1\); use that version, or --restart"
    ) as refused:
        checkpoint.load(tmp_path)
    assert "\n" not in str(refused.value)


def test_generator_states_are_restored(tmp_path):
    def draws():
        return random.random(), np.random.rand(), np.random.randn(), torch.rand(3).tolist()

    np.random.randn()  # draws a pair, of which NumPy keeps the second
    checkpoint.save(tmp_path, {"generators": checkpoint.generator_states()})
    expected = draws()
    draws()
    checkpoint.set_generator_states(checkpoint.load(tmp_path)["generators"])
    assert draws() == expected


@pytest.fixture
def devices(monkeypatch):
    """Generators of two simulated GPUs, as `torch.cuda` gives access to them."""
    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    for name, replacement in {
        "is_initialized": lambda: True,
        "device_count": lambda: len(generators),
        "get_rng_state_all": lambda: [each.get_state() for each in generators],
        "set_rng_state_all": lambda states: [
            each.set_state(state) for each, state in zip(generators, states, strict=True)
        ],
    }.items():
        monkeypatch.setattr(torch.cuda, name, replacement)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    return generators


def test_generators_of_devices_are_restored(tmp_path, devices):
    def draws():
        return [torch.rand(3, generator=each).tolist() for each in devices]

    draws()
    checkpoint.save(tmp_path, {"generators": checkpoint.generator_states()})
    expected = draws()
    assert expected[0] != expected[1]
    draws()
    checkpoint.set_generator_states(checkpoint.load(tmp_path)["generators"])
    assert draws() == expected


def test_generators_of_another_number_of_devices_are_left_alone(tmp_path, devices):
    checkpoint.save(tmp_path, {"generators": checkpoint.generator_states()})
    torch.rand(3, generator=devices[0])
    left = devices[0].get_state()
    del devices[1]
    checkpoint.set_generator_states(checkpoint.load(tmp_path)["generators"])
    assert torch.equal(devices[0].get_state(), left)
