"""Optimizers that a run chooses by name, and one descent step."""

import copy

import pytest
import torch
from torch import nn, optim

from domainbed.algorithms import ALGORITHMS, get_algorithm_class
from domainbed.algorithms.ermplusplus import LARS
from domainbed.algorithms.optimizers import NAMES, OptimizerChoice, chosen, descend, optimizers_of
from domainbed.errors import UsageError
from domainbed.hparams_registry import default_hparams

SHAPE = (5,)


def make(name, **hparams):
    torch.manual_seed(0)
    values = default_hparams(name, "Debug28") | {"featurizer": "mlp", "mlp_width": 4, "mlp_depth": 2}
    return get_algorithm_class(name)(SHAPE, 2, 3, values | hparams)


def minibatches(seed):
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(4, *SHAPE, generator=generator), torch.tensor([0, 1, 0, 1])) for _ in range(3)]


def test_descend_steps_the_given_optimizers_along_the_gradient_of_this_loss():
    weights = [nn.Parameter(torch.tensor([1.0, 2.0])) for _ in range(3)]
    optimizers = [optim.SGD([weight], lr=0.5) for weight in weights]
    weights[0].grad = torch.full((2,), 100.0)
    descend(sum(weight.square().sum() for weight in weights), *optimizers[:2])
    assert [weight.tolist() for weight in weights] == [[0.0, 0.0], [0.0, 0.0], [1.0, 2.0]]


@pytest.mark.parametrize("name", NAMES)
def test_an_update_is_a_step_of_torchs_optimizer_of_that_name(name):
    algorithm = make("ERM", optimizer=name, lr=0.01, weight_decay=0.1)
    reference = copy.deepcopy(algorithm.network)
    keywords = {"momentum": 0.9} if name == "SGD" else {}
    optimizer = getattr(optim, name)(reference.parameters(), lr=0.01, weight_decay=0.1, **keywords)
    for step in range(3):
        x, y = (torch.cat(parts) for parts in zip(*minibatches(step), strict=True))
        optimizer.zero_grad()
        nn.functional.cross_entropy(reference(x), y).backward()
        optimizer.step()
        algorithm.update(minibatches(step))
    for got, expected in zip(algorithm.network.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("name", NAMES)
def test_training_resumes_to_the_bit_with_each_optimizer(name):
    straight, second = make("ERM", optimizer=name, lr=0.01), make("ERM", optimizer=name, lr=0.01)
    for step in range(2):
        straight.update(minibatches(step))
    second.load_training_state(copy.deepcopy(straight.training_state()))
    for algorithm in (straight, second):
        algorithm.update(minibatches(2))
    assert all(map(torch.equal, straight.parameters(), second.parameters()))


def test_options_are_those_of_the_class():
    text = "nesterov=True, dampening=0"
    (_, optimizer), *others = optimizers_of(
        make("ERM", optimizer="SGD", momentum=0.5, optimizer_options=text)
    )
    assert not others
    found = {name: optimizer.defaults[name] for name in ("lr", "momentum", "nesterov", "dampening")}
    assert found == {"lr": 1e-3, "momentum": 0.5, "nesterov": True, "dampening": 0}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_method_has_the_chosen_optimizer_or_refuses_the_choice(name):
    shape = (3, 16, 16)
    hparams = {"optimizer": "SGD", "momentum": 0.5}
    values = default_hparams(name, "Debug28") | {"featurizer": "small_cnn"} | hparams
    algorithm = get_algorithm_class(name)(shape, 2, 3, values)
    if name == "GENIE":
        assert algorithm.unread_hparams(hparams).keys() == {"optimizer", "momentum", "optimizer_options"}
        return
    if not algorithm.TRAINS:
        assert {"optimizer", "momentum", "optimizer_options"} <= algorithm.unread_hparams(hparams).keys()
        assert not list(optimizers_of(algorithm))
        return
    assert algorithm.unread_hparams(hparams) == {}
    own = {"URM": "discriminator_opt", "FAMO": "logits_optimizer", "TRM": "optimizer_clist"}
    own |= {"Transfer": "adv_opt"}  # each has a hyper-parameter, or a rate, of its own
    for attribute, optimizer in optimizers_of(algorithm):
        if attribute != own.get(name):
            assert OptimizerChoice("SGD", {"momentum": 0.5}).describes(optimizer), attribute


def test_without_a_choice_every_method_has_the_optimizers_of_upstream():
    both = {optim.Adam, optim.SGD}
    for name in ALGORITHMS:
        values = default_hparams(name, "Debug28") | {"featurizer": "small_cnn"}
        algorithm = get_algorithm_class(name)((3, 16, 16), 2, 3, values)
        kinds = {type(each) for _, each in optimizers_of(algorithm)}
        expected = both if name in ("TRM", "Transfer") else {optim.Adam}
        expected = expected if algorithm.TRAINS else set()
        assert name == "GENIE" or kinds == expected, name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nesterov", "takes options as Python writes them"),
        ("0.5", "takes options as Python writes them"),
        ("momentum=1)(x=2", "takes options as Python writes them"),
        ("eps=open('x')", "takes options as Python writes them"),
        ("**{'eps': 1}", "takes options as Python writes them"),
        ("(" * 300, "takes options as Python writes them"),
        ("eps=1, eps=2", "takes options as Python writes them"),
        ("lr=0.1", "cannot set lr"),
        ("weight_decay=0.1", "cannot set weight_decay"),
        ("momentum=0.1", "cannot set momentum"),
        ("eps=1e-3", "optimizer SGD has no option 'eps', but momentum, dampening, nesterov"),
        ("fused=True", "optimizer SGD has no option 'fused'"),
        (
            "nesterov=True, dampening=0.5",
            "optimizer SGD refuses optimizer_options: Nesterov momentum requires",
        ),
        ("dampening='much'", "optimizer SGD refuses optimizer_options"),
    ],
)
def test_options_that_the_optimizer_does_not_take_are_an_error_of_one_line(text, message):
    with pytest.raises(UsageError) as error:
        chosen({"optimizer": "SGD", "optimizer_options": text})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_names_that_an_algorithm_declares_itself_choose_nothing():
    hparams = {"optimizer": "lion", "optimizer_options": "amsgrad=True"}
    assert chosen(hparams, own=["optimizer"]) == OptimizerChoice("Adam", {"amsgrad": True})


def test_players_have_beta1_unless_the_options_set_betas():
    for optimizer, text, betas in (
        ("AdamW", "", (0.5, 0.9)),
        ("NAdam", "betas=(0.7, 0.8)", (0.7, 0.8)),
    ):
        algorithm = make("DANN", optimizer=optimizer, optimizer_options=text)
        assert {each.defaults["betas"] for _, each in optimizers_of(algorithm)} == {betas}


def test_decoupled_decay_of_a_surgery_is_adamw_with_the_options():
    algorithm = make("AgrSum", wd="decoupled", optimizer_options="eps=1e-6", weight_decay=0.2)
    assert type(algorithm.optimizer) is optim.AdamW
    assert (algorithm.optimizer.defaults["eps"], algorithm.optimizer.defaults["weight_decay"]) == (1e-6, 0.2)
    with pytest.raises(UsageError, match="wd decoupled makes AdamW of Adam, and optimizer is SGD"):
        make("AgrSum", wd="decoupled", optimizer="SGD")


def test_masked_decay_is_the_surgerys_own_with_any_optimizer():
    algorithm = make("AgrSum", wd="masked", optimizer="SGD", weight_decay=0.2)
    assert algorithm.optimizer.defaults["weight_decay"] == 0


def test_plain_descent_of_transfer_gives_way_to_a_choice():
    assert "momentum" not in make("Transfer", gda=True).hparams
    assert make("Transfer", gda=True).optimizer.defaults["momentum"] == 0
    assert make("Transfer", gda=True, optimizer="SGD", momentum=0.5).optimizer.defaults["momentum"] == 0.5
    assert type(make("Transfer", gda=True, optimizer="AdamW").optimizer) is optim.AdamW


def test_lars_is_an_optimizer_of_its_own():
    assert type(make("ERMPlusPlus", lars=True).optimizer) is LARS
    given = {"lars": True, "optimizer": "SGD"}
    assert get_algorithm_class("ERMPlusPlus").unread_hparams(given)["optimizer"] == "'lars' is true"


@pytest.mark.parametrize("options", ["", "betas=(0.9, 0.999)"])
def test_the_trial_step_of_mldg_is_the_first_one_of_the_chosen_optimizer(options):
    """By default in closed form, with any option by the optimizer itself."""
    algorithm = make("MLDG", optimizer_options=options, lr=0.1, weight_decay=0.5)
    parameters = dict(algorithm.network.named_parameters())
    gradients = [torch.randn_like(parameter) for parameter in parameters.values()]
    reference = copy.deepcopy(algorithm.network)
    optimizer = optim.Adam(reference.parameters(), lr=0.1, weight_decay=0.5)
    for parameter, gradient in zip(reference.parameters(), gradients, strict=True):
        parameter.grad = gradient.clone()
    optimizer.step()
    stepped = algorithm._trial_step(parameters, gradients)
    for got, expected in zip(stepped.values(), reference.parameters(), strict=True):
        torch.testing.assert_close(got, expected)
        assert got.requires_grad
