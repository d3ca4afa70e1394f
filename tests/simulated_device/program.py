"""Runs cases on the simulated device and on the CPU, in a process of its own, and prints what it found.

    PYTHONPATH=tests/simulated_device:. python tests/simulated_device/program.py CASES.json

CASES.json has a list of [kind, arguments]; each gives one line of JSON. A case that raises gives its error.
"""

import json
import os
import signal
import sys
import traceback
from pathlib import Path

import autocast
import device
import torch

import domainbed
from domainbed.algorithms import REGISTRY, get_algorithm_class
from domainbed.algorithms.erm import ERM
from domainbed.datasets import get_dataset_class
from domainbed.errors import DomainBedError
from domainbed.hparams_registry import default_hparams
from domainbed.seeds import seed_all
from domainbed.test.helpers import make_minibatches
from domainbed.training import checkpoint
from domainbed.training.acceleration import accelerate
from domainbed.training.config import TrainConfig
from domainbed_gs.algorithms.agr import AgrRand

CPU, SIM = "cpu", device.NAME
STEPS = 3
AT_ONCE = ("iters", "eqrm_burnin_iters", "linear_steps")
"""Hyper-parameters that are numbers of updates, beside those that end with "anneal_iters"."""


def build(name, where, hparams, precision="fp32"):
    """An algorithm on a device, and minibatches of three environments. Warm-ups last one update."""
    seed_all(0)
    dataset = get_dataset_class("Debug28")(None, [], {})
    values = default_hparams(name, "Debug28")
    warm_ups = {key: 1 for key in values if key.endswith("anneal_iters") or key in AT_ONCE}
    values |= {"featurizer": "small_cnn"} | warm_ups | hparams
    seed_all(0)
    algorithm = get_algorithm_class(name)(
        dataset.input_shape, dataset.num_classes, len(dataset.datasets), values
    )
    algorithm.to(where)
    if precision != "fp32":
        accelerate(algorithm, TrainConfig(algorithm=name, dataset="Debug28", precision=precision))
    return algorithm, [(x.to(where), y.to(where)) for x, y in make_minibatches(dataset, 8)]


def updates(name, where, hparams, precision="fp32"):
    """Three updates and a prediction: metrics and reads of each update, weights, logits."""
    algorithm, minibatches = build(name, where, hparams, precision)
    metrics, reads = [], []
    for step in range(STEPS):
        seed_all(step)
        with device.counted_reads() as counted:
            found = algorithm.update(minibatches)
        reads.append(counted)
        metrics.append({key: float(value) for key, value in found.items()})
    weights = torch.cat([value.cpu().double().flatten() for value in algorithm.state_dict().values()])
    algorithm.eval()
    seed_all(STEPS)
    with torch.inference_mode() if algorithm.INFERENCE_MODE else torch.no_grad():
        logits = algorithm.predict(minibatches[0][0]).cpu()
    return metrics, reads, weights, logits


def algorithm(name, hparams, precision="fp32"):
    """Relative difference of the weights, greatest one of the logits and losses, and the reads."""
    (here, reads, weights, logits), (there, _, expected, wanted) = (
        updates(name, where, hparams, precision) for where in (SIM, CPU)
    )
    return {
        "weights": float((weights - expected).norm() / expected.norm()),
        "logits": float((logits - wanted).abs().max()),
        "metrics": sorted(here[0]) == sorted(there[0]),
        "losses": max(abs(a.get("loss", 0.0) - b.get("loss", 0.0)) for a, b in zip(here, there, strict=True)),
        "reads": reads,
    }


class Stopped(AgrRand):
    """AgrRand that asks its run to stop in the sixth update, once."""

    again = False
    TRANSIENT = ("count",)

    def update(self, minibatches, unlabeled=None):
        self.count = getattr(self, "count", 0) + 1
        if self.count == 6 and not Stopped.again:
            Stopped.again = True
            os.kill(os.getpid(), signal.SIGTERM)
        return super().update(minibatches, unlabeled)


REGISTRY["Stopped"] = Stopped


def records_and_weights(path):
    lines = (path / "results.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines], torch.load(path / "model.pkl", weights_only=True)[
        "model_dict"
    ]


def greatest_difference(one, other):
    """The greatest difference of two records' numbers, without times."""
    names = [key for key, value in one.items() if isinstance(value, float | int)]
    names = [key for key in names if key not in ("step_time", "mem_gb")]
    return max(abs(one[key] - other[key]) for key in names)


def run(folder, settings):
    """A whole run on both devices: the greatest difference of its records, and whether weights are equal."""
    runs = []
    for where in ("cpu", device.NAME):
        path = Path(folder) / where
        domainbed.train(**settings, device=where, output_dir=path)
        runs.append(records_and_weights(path))
    (expected, wanted), (records, weights) = runs
    return {
        "keys": [*records[0]] == [*expected[0]] and len(records) == len(expected),
        "records": max(map(greatest_difference, records, expected)),
        "weights": all(torch.equal(weights[name], wanted[name]) for name in wanted),
    }


def resume(folder, settings):
    """A run on the device that is stopped and resumed, and one that is not."""
    device.BACKEND.own_generator = True
    paths = [Path(folder) / name for name in ("straight", "resumed")]
    Stopped.again = True
    domainbed.train(algorithm="Stopped", device=device.NAME, output_dir=paths[0], **settings)
    Stopped.again = False
    try:
        domainbed.train(algorithm="Stopped", device=device.NAME, output_dir=paths[1], **settings)
    except DomainBedError as stopped:
        reason = str(stopped)
    domainbed.train(algorithm="Stopped", device=device.NAME, output_dir=paths[1], **settings)
    device.BACKEND.own_generator = False
    (expected, wanted), (records, weights) = map(records_and_weights, paths)
    return {
        "stopped": reason,
        "records": max(map(greatest_difference, records, expected)),
        "weights": all(torch.equal(weights[name], wanted[name]) for name in wanted),
    }


def generators():
    """Draws of the device after its generators were restored, and whether they were its own."""
    device.BACKEND.own_generator = True
    torch.manual_seed(7)
    torch.rand(5, device=SIM)  # the device's generator is ahead of the CPU's
    states = checkpoint.generator_states()
    expected = torch.rand(3, device=SIM).tolist()
    on_host = torch.rand(3).tolist()
    torch.rand(8, device=SIM)
    checkpoint.set_generator_states(states)
    again = torch.rand(3, device=SIM).tolist()
    device.BACKEND.own_generator = False
    return {"restored": again == expected, "own": expected != on_host}


def the_device():
    """What the device itself does: errors where devices mix, reads, identity, views."""
    x = torch.arange(6.0, device=SIM).view(2, 3)
    found = {}
    for name, mixed in {
        "sum": lambda: x + torch.ones(3),
        "write": lambda: torch.zeros(2, 3).add_(x),
        "matmul": lambda: x @ torch.ones(3),
        "stack": lambda: torch.stack([x, torch.ones(2, 3)]),
        "index of the device": lambda: torch.ones(6)[x[0].long()],
    }.items():
        try:
            mixed()
        except device.MixedDevices:
            continue
        found[name] = "no error"
    allowed = [
        x + torch.tensor(1.0),
        x[torch.tensor([0])],
        torch.zeros(2, 3, device=SIM).copy_(torch.ones(2, 3)),
    ]
    found["allowed"] = [tensor.device.type for tensor in allowed]
    reads = {
        "item": lambda: x.sum().item(),
        "bool": lambda: bool(x.sum() > 0),
        "copy": lambda: x.cpu(),
        "copy into": lambda: torch.zeros(2, 3).copy_(x),
        "list": lambda: x.tolist(),
        "mask": lambda: x[x > 2],
        "nonzero": lambda: x.nonzero(),
        "equal": lambda: torch.equal(x, x),
        "unique": lambda: x.unique(),
        "repeat": lambda: x[0].repeat_interleave(x[0].long()),
        "nothing": lambda: torch.where(x > 2, x, 0).sum() * 3 + x[0, 1],
    }
    counts = {}
    for name, read in reads.items():
        with device.counted_reads() as counted:
            read()
        counts[name] = len(counted)
    found["reads"] = counts
    view = x[1]
    found["in place"] = view.add_(1) is view and x.tolist() == [[0, 1, 2], [4, 5, 6]]
    layer = torch.nn.Linear(3, 2)
    weight = layer.weight
    layer.to(SIM)
    found["parameter"] = layer.weight is weight and weight.device == torch.device(device.NAME, 0)
    try:
        x.numpy()
        found["numpy"] = "no error"
    except (RuntimeError, TypeError):
        pass
    return found


def mixing_algorithm():
    """The error of an algorithm that makes a tensor on the CPU in each update."""

    class Mixing(ERM):
        def update(self, minibatches, unlabeled=None):
            return super().update([(x + torch.zeros(x.shape), y) for x, y in minibatches])

    REGISTRY["Mixing"] = Mixing
    return updates("Mixing", SIM, {})[0]


KINDS = {each.__name__: each for each in (algorithm, run, resume, generators, the_device, mixing_algorithm)}


def main():
    # Before the first backward pass, which starts a thread for each device.
    device.install()
    rules = autocast.install()
    torch.set_num_threads(1)
    for kind, arguments in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        try:
            found = KINDS[kind](*arguments)
        except Exception as error:
            print(traceback.format_exc(), file=sys.stderr)
            found = {"error": f"{type(error).__name__}: {error}"}
        print("FOUND", json.dumps(found), flush=True)
    del rules


if __name__ == "__main__":
    main()
