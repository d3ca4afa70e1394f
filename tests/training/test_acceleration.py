"""Acceleration options change numbers only by rounding, or are refused in one line."""

import copy
import functools
import json
import re

import pytest
import torch
from torch import nn

import domainbed
from domainbed.algorithms import ALGORITHMS, get_algorithm_class
from domainbed.algorithms.base import Algorithm
from domainbed.errors import UsageError
from domainbed.hparams_registry import default_hparams
from domainbed.seeds import seed_all
from domainbed.sweep.flags import parse
from domainbed.sweep.planned_jobs import make_jobs
from domainbed.training import acceleration
from domainbed.training.acceleration import accelerate, check_device
from domainbed.training.config import TrainConfig
from domainbed.training.config_checks import check_config
from domainbed.training.run_hparams import resolved_hparams

SHAPE = (3, 16, 16)
START_SUFFIXES = ("penalty_anneal_iters", "burnin_iters", "iters", "linear_steps")
"""Suffixes of hyper-parameters for the update at which a method starts to differ from ERM. Set to 0 here."""

BFLOAT16 = {"precision": "bf16"}
LAST = {"channels_last": True}
COMPILED = {"compile": True}
QUICK = {
    **{"dataset": "Debug28", "steps": 2, "checkpoint_freq": 2, "test_envs": [0]},
    "hparams": {"batch_size": 4, "featurizer": "small_cnn"},
}
OF_ALL_KINDS = ("ERM", "Fish", "IRM", "MLDG", "SagNet", "ARM", "Fishr", "ANDMask", "AgrSum", "PCGrad", "SAM")


def all_algorithms(*quick):
    """Parameters for all algorithms. Those not in `quick` are marked as slow."""
    return [pytest.param(name, marks=[] if name in quick else pytest.mark.slow) for name in ALGORITHMS]


def make(name, options, cls=None, **overrides):
    """An algorithm for three environments, always with the same initial weights."""
    torch.manual_seed(0)
    hparams = default_hparams(name, "Debug28") | {"featurizer": "small_cnn"}
    hparams |= {each: 0 for each in hparams if each.endswith(START_SUFFIXES)} | overrides
    algorithm = (cls or get_algorithm_class(name))(SHAPE, 3, 3, hparams)
    accelerate(algorithm, TrainConfig(algorithm=name, dataset="Debug28", **options))
    return algorithm


def minibatches():
    generator = torch.Generator().manual_seed(0)
    patterns, y = torch.randn(3, *SHAPE, generator=generator), torch.arange(6) % 3
    return [
        ((1 + e / 4) * patterns[y] + 0.5 * torch.randn(6, *SHAPE, generator=generator), y) for e in range(3)
    ]


def weights(algorithm):
    return torch.cat([parameter.detach().flatten() for parameter in algorithm.parameters()])


def trained(algorithm):
    """Change of the weights in two updates, and the logits after them in evaluation mode."""
    before = weights(algorithm)
    for step in range(2):
        seed_all(step)
        algorithm.update(minibatches())
    algorithm.eval()
    with torch.inference_mode(algorithm.INFERENCE_MODE), torch.no_grad():
        logits = torch.cat([algorithm.predict(x) for x, _ in minibatches()])
    return weights(algorithm) - before, logits


@functools.cache
def trained_without_options(name):
    return trained(make(name, {}))


@pytest.mark.parametrize(("options", "cosine", "error"), [(BFLOAT16, 0.9, 0.15), (LAST, 0.999, 1e-3)])
@pytest.mark.parametrize("name", all_algorithms(*OF_ALL_KINDS))
def test_bfloat16_and_channels_last_change_results_by_rounding(name, options, cosine, error):
    algorithm = make(name, options)
    way, found = trained(algorithm)
    expected_way, expected = trained_without_options(name)
    if algorithm.TRAINS:
        assert not torch.equal(way, expected_way), "the option has no effect"
        assert torch.cosine_similarity(way, expected_way, dim=0) > cosine
    assert (found - expected).norm() < error * expected.norm()
    assert all(parameter.dtype == torch.float32 for parameter in algorithm.parameters())


@pytest.fixture
def traced(monkeypatch):
    """Replace the compiler's backend by one that traces networks and then runs them eagerly."""
    monkeypatch.setattr(acceleration, "BACKEND", "aot_eager")
    torch.compiler.reset()  # otherwise it stops compiling after a number of recompilations
    torch._dynamo.utils.counters.clear()
    yield
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"], "nothing was compiled"


# The compiler asks each tensor for its gradient and hides this warning, which fails if warnings are errors.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("name", all_algorithms("MLDG"))
def test_tracing_for_the_compiler_changes_no_result(name, traced):
    config = TrainConfig(algorithm=name, dataset="Debug28", **COMPILED)
    if not get_algorithm_class(name).COMPILABLE:
        with pytest.raises(UsageError, match=f"^{name} needs second derivatives .* leave out --compile$"):
            check_config(config)
        with pytest.raises(RuntimeError, match=r"donated|double backward"):
            trained(make(name, COMPILED))
        return
    passes = {"passes": "separate"} if "passes" in resolved_hparams(config) else {}
    way, found = trained(make(name, COMPILED, **passes))
    expected_way, expected = trained(make(name, {}, **passes))
    assert torch.equal(way, expected_way)
    if name == "CLIPZeroShot":  # evaluated attention has a kernel of its own, which the compiler does not use
        torch.testing.assert_close(found, expected)
    else:
        assert torch.equal(found, expected)


@pytest.mark.slow
def test_compilation_changes_results_by_rounding():
    dropout = {"featurizer": "mlp", "mlp_width": 16, "mlp_dropout": 0.5}
    way, found = trained(make("ERM", COMPILED, **dropout))
    expected_way, expected = trained(make("ERM", {}, **dropout))
    torch.testing.assert_close(way, expected_way, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found, expected)
    algorithm = make("AgrSum", COMPILED | BFLOAT16 | LAST, passes="separate")
    way, found = trained(algorithm)
    assert torch.cosine_similarity(way, trained_without_options("AgrSum")[0], dim=0) > 0.9
    torch.testing.assert_close(found, trained_without_options("AgrSum")[1], rtol=0.1, atol=0.1)


@pytest.mark.slow
def test_a_broken_compiler_is_reported_in_one_line(tmp_path, script):
    # In a process of its own, because torch reads CXX when it is imported.
    environment = {"CXX": "/bin/false", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "compiled")}
    flags = ("--dataset", "Debug28", "--steps", 2, "--compile", "--output_dir", "run")
    ended = script("train", *flags, env=environment)
    assert ended.returncode == 1
    assert re.fullmatch(
        r"error: torch.compile failed \(.*\); leave out --compile\.", ended.stderr.splitlines()[-1]
    )


@pytest.mark.parametrize("passes", ["joint", "separate"])
@pytest.mark.parametrize("name", ["AgrSum", "CAGrad"])
def test_only_the_featurizer_is_in_bfloat16(name, passes):
    seen = []

    class Watched(get_algorithm_class(name)):
        def finish(self, combined):
            seen.append((combined.gradient.dtype, torch.is_autocast_enabled("cpu")))
            super().finish(combined)

    algorithm = make(name, BFLOAT16, Watched, passes=passes)
    inside = []
    algorithm.featurizer.layers[3].register_forward_hook(
        lambda _, x, y: inside.append((y.dtype, y.requires_grad))
    )
    algorithm.featurizer.register_forward_hook(lambda _, x, y: inside.append(y.dtype))
    algorithm.update(minibatches())
    forward = [(torch.bfloat16, True), torch.float32]
    assert inside == forward * (1 if passes == "joint" else 3)
    assert seen == [(torch.float32, False)]
    assert all(parameter.grad.dtype == torch.float32 for parameter in algorithm.trained_parameters())
    with torch.no_grad():
        inside.clear()
        assert algorithm.predict(minibatches()[0][0]).dtype == torch.float32
        assert inside == [(torch.bfloat16, False), torch.float32]


def test_joint_and_separate_passes_agree_in_bfloat16():
    found = []
    for passes in ("joint", "separate"):
        algorithm = make("MGDA", BFLOAT16 | LAST, passes=passes)
        algorithm.update(minibatches())
        found.append(torch.cat([parameter.grad.flatten() for parameter in algorithm.trained_parameters()]))
    assert torch.cosine_similarity(*found, dim=0) > 0.999


def test_copies_use_their_own_weights_and_names_do_not_change():
    plain = make("ERM", {})
    for options in (BFLOAT16 | LAST, COMPILED):
        algorithm = make("ERM", options)
        assert list(algorithm.state_dict()) == list(plain.state_dict())
        if options == COMPILED:
            continue
        other = copy.deepcopy(algorithm)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.zero_()
            x = minibatches()[0][0]
            assert not other.predict(x).any()
            assert algorithm.predict(x).any()


def test_convolutions_get_channels_last_images_and_weights():
    algorithm, plain = make("AgrSum", LAST), make("AgrSum", {})
    seen = []
    for each in (algorithm, plain):
        each.featurizer.layers[0].register_forward_pre_hook(
            lambda layer, x: seen.append((x[0].stride()[1], layer.weight.stride()[1]))
        )
        each.predict(minibatches()[0][0])
    assert seen == [(1, 1), (SHAPE[1] * SHAPE[2], 16)]


@pytest.mark.parametrize("fused", [False, True])
def test_optimizers_accept_gradients_in_another_memory_format(fused):
    make("ERM", LAST)
    torch.manual_seed(0)
    values, gradient = torch.randn(4, 3, 2, 2), torch.randn(4, 3, 2, 2)
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        parameter = nn.Parameter(values.clone(memory_format=layout))
        optimizer = torch.optim.Adam([parameter], lr=0.1, fused=fused)
        parameter.grad = gradient.clone()
        optimizer.step()
        found.append(parameter.detach())
    torch.testing.assert_close(*found)


def test_tf32_is_allowed_only_with_precision_tf32():
    for precision, allowed in (("tf32", True), ("fp32", False), ("tf32", True), ("bf16", False)):
        make("ERM", {"precision": precision})
        assert torch.backends.cuda.matmul.allow_tf32 == torch.backends.cudnn.allow_tf32 == allowed


class Bare(Algorithm):
    """An algorithm without a featurizer."""

    def __init__(self, *args):
        super().__init__(*args)
        self.layer = nn.Linear(1, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp16"}, "--precision must be one of fp32, tf32, bf16, not 'fp16'"),
        ({"precision": "tf32"}, "--precision tf32 needs an NVIDIA GPU .* on cpu"),
        (
            LAST | {"hparams": {"featurizer": "mlp"}},
            "--channels_last needs convolutions .* Debug28 has none",
        ),
        (COMPILED | {"algorithm": "IGA"}, "IGA needs second derivatives of its network"),
    ],
)
def test_unusable_options_are_refused_in_one_line(options, message, tmp_path):
    with pytest.raises(UsageError, match=message) as refused:
        domainbed.train(**QUICK | {"device": "cpu", "output_dir": tmp_path / "run"} | options)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run/results.jsonl").exists()


@pytest.mark.parametrize("options", [BFLOAT16, LAST, COMPILED])
def test_options_need_a_featurizer(options):
    with pytest.raises(UsageError, match="needs a featurizer, and ERM has none; leave it out"):
        make("ERM", options, Bare)


def test_a_missing_compiler_error_says_what_to_install(monkeypatch):
    config, cpu = TrainConfig(**COMPILED), torch.device("cpu")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UsageError, match=r"--compile needs the compiler no-such-compiler.*install g\+\+"):
        check_device(config, cpu)
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match=r"--compile needs the compiler g\+\+; install it"):
        check_device(config, cpu)
    monkeypatch.undo()
    monkeypatch.setattr("sysconfig.get_path", lambda _: "/nowhere")
    with pytest.raises(UsageError, match="needs Python's headers"):
        check_device(config, cpu)


def test_a_run_records_its_options_and_cannot_resume_with_others(tmp_path):
    domainbed.train(algorithm="AgrSum", output_dir=tmp_path, **QUICK | BFLOAT16 | LAST)
    args = json.loads((tmp_path / "results.jsonl").read_text().splitlines()[-1])["args"]
    assert (args["precision"], args["channels_last"], args["compile"]) == ("bf16", True, False)
    assert torch.load(tmp_path / "model.pkl", weights_only=True)["args"] == args
    with pytest.raises(UsageError, match="channels_last was True, now False"):
        domainbed.train(algorithm="AgrSum", output_dir=tmp_path, **QUICK | BFLOAT16)


def test_compiled_surgery_uses_and_records_separate_passes(tmp_path, traced):
    frames = [
        domainbed.train(algorithm="AgrRand", output_dir=tmp_path / passes, **settings)
        for passes, settings in (
            ("compiled", QUICK | COMPILED),
            ("separate", QUICK | {"hparams": QUICK["hparams"] | {"passes": "separate"}}),
        )
    ]
    same = ["loss", "sigma", "cosine", "env0_in_acc", "env1_out_acc", "hparams.passes"]
    assert frames[0][same].equals(frames[1][same])


def test_a_sweep_passes_options_on_and_names_of_runs_without_options_stay():
    few = ["launch", "--datasets", "Debug28", "--algorithms", "ERM", "--output_dir", "sweep"]
    few += ["--n_hparams", "1", "--n_trials", "1", "--single_test_envs", "--test_envs", "0"]
    (plain,), (fast,) = (
        make_jobs(parse([*few, *more]))
        for more in ([], ["--precision", "bf16", "--channels_last", "--compile"])
    )
    assert not {"precision", "channels_last", "compile"} & plain.train_args.keys()
    assert plain.name == "c9e937b891adc066d6ccc1313cf65832"
    assert all(flag in fast.command_str for flag in ("--precision bf16", " --channels_last", " --compile"))
    assert fast.name != plain.name
