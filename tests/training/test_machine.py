"""Each run says which processor, kernels, threads and libraries its numbers come from."""

import json
import os

import pytest
import torch

from domainbed.training.machine import describe_machine, processor
from domainbed.training.run_dir import RunDir

FLAGS = ("--dataset", "Debug28", "--algorithm", "ERM", "--steps", 2, "--output_dir", "run")


def test_a_run_records_its_machine_once_and_another_one_when_it_is_resumed_elsewhere(tmp_path):
    here, elsewhere = describe_machine(torch.device("cpu")), {"processor": "another"}
    with RunDir(tmp_path, {"steps": 1}) as directory:
        for machine in (here, here, elsewhere, here):
            directory.write_summary({}, machine=machine)
    recorded = json.loads((tmp_path / "run.json").read_text())["machines"]
    assert recorded == [here, elsewhere, here]


def test_the_entries_are_those_of_this_process(tmp_path, forked_script):
    assert forked_script("train", *FLAGS).returncode == 0
    (machine,) = json.loads((tmp_path / "run" / "run.json").read_text())["machines"]
    assert machine["processor"] == processor() != ""
    assert machine["kernels"].startswith(torch.backends.cpu.get_cpu_capability())
    assert machine["threads"] == torch.get_num_threads()
    assert machine["device"] == ("cpu" if not torch.cuda.is_available() else torch.cuda.get_device_name())
    assert machine["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert {"python", "numpy", "torchvision", "domainbed_gs"} <= machine.keys()


@pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"])
def test_variables_that_limit_the_kernels_are_recorded(monkeypatch, name):
    before = describe_machine(torch.device("cpu"))["kernels"]
    monkeypatch.setitem(os.environ, name, "AVX2")
    after = describe_machine(torch.device("cpu"))["kernels"]
    assert f"{name}=AVX2" in after
    assert after != before or f"{name}=AVX2" in before
