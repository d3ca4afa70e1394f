"""What is asked of accelerators, where there is none; see `simulated_device` for one."""

import pytest
import torch

from domainbed import accelerators

CPU = torch.device("cpu")


@pytest.mark.skipif(torch.accelerator.is_available(), reason="this machine has an accelerator")
def test_a_machine_without_an_accelerator_uses_the_cpu():
    assert accelerators.default_device() == "cpu"


def test_the_cpu_has_no_memory_of_its_own_and_its_type_for_a_name():
    assert (accelerators.free_bytes(CPU), accelerators.peak_bytes(CPU)) == (0, 0)
    assert accelerators.name_of(CPU) == "cpu"
    assert not accelerators.takes_pinned_memory(CPU)
