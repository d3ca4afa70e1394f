"""No surgery depends on the rounding of the gradients.

Each float32 gradient is changed by about its own rounding, and no method's combined gradient may change by
more than 1e-3 of the mean length of the gradients. What of this is true of which kind of rule:

- Rules by inner products are continuous, where the papers' formulas jump (at dependent, opposite or zero
  gradients), because near these points they pass to a limit by degrees.
- Rules by signs jump where a component crosses 0, by definition. Rounding relative to the component itself
  never moves it across, so here they are as stable as a sum. A change that does cross 0 may change what
  the rule gives for this component, by at most the sum of the absolute values there, and for no other: the
  last test holds that.
- Rules that draw get the same draws. GradDrop compares each with a purity, which rounding moves by 1e-7: one
  of 10 million draws decides otherwise. None of the draws here does.
"""

import copy

import pytest
import torch

from domainbed.algorithms import REGISTRY, get_algorithm_class
from domainbed.algorithms.environment_gradients import ComponentwiseMethod, EnvironmentGradients
from domainbed.gradients.componentwise import Block
from domainbed.hparams import resolve
from domainbed.hparams_registry import table

P = 2000
SMALLEST = 1e-7  # of a component: its change
LARGEST = 1e-3  # of the gradients' mean length: the change of the combined gradient

DISTANCES = [1e-2, 2e-3, 5e-4, 1e-4, 1e-6, 1e-7, 2.6e-8, 1e-9, 1e-12, 1e-30]

METHODS = [name for name in REGISTRY if issubclass(get_algorithm_class(name), EnvironmentGradients)]
COMPONENTWISE = [name for name in METHODS if issubclass(get_algorithm_class(name), ComponentwiseMethod)]

EXACT = {
    "independent": lambda a, b, c: [a, b, c],
    "identical": lambda a, b, c: [a, a, a],
    "duplicate": lambda a, b, c: [a, a, b],
    "parallel": lambda a, b, c: [a, 2 * a, 0.3 * a],
    "dependent": lambda a, b, c: [a, b, a + b],
    "dependent with conflict": lambda a, b, c: [a, b, a - 2 * b],
    "opposite": lambda a, b, c: [a, -a, b],
    "opposite of other lengths": lambda a, b, c: [a, -2 * a, b + 0.5 * a],
    "on a line": lambda a, b, c: [a, -2 * a, 0.5 * a],
    "cancelling": lambda a, b, c: [a, b, -a - b],
    "stationary": lambda a, b, c: [a, b, -a - 3 * b],
    "one zero": lambda a, b, c: [a, b, 0 * c],
    "two zeros": lambda a, b, c: [a, 0 * b, 0 * c],
    "small": lambda a, b, c: [1e-15 * a, 1e-15 * b, 1e-15 * c],
}
NEAR = {  # e times the distance from the case of the same kind above
    "nearly identical": lambda a, b, c, e: [a, a + e * b, a + e * c],
    "nearly duplicate": lambda a, b, c, e: [a, a + e * c, b],
    "nearly parallel": lambda a, b, c, e: [a, 2 * a + e * b, 0.3 * a + e * c],
    "nearly dependent": lambda a, b, c, e: [a, b, a + b + e * c],
    "nearly opposite": lambda a, b, c, e: [a, -2 * a + e * c, b],
    "nearly cancelling": lambda a, b, c, e: [a, b, -a - b + e * c],
    "nearly stationary": lambda a, b, c, e: [a, b, -a - 3 * b + e * c],
    "nearly zero": lambda a, b, c, e: [a, b, e * c],
    "nearly zero with duplicates": lambda a, b, c, e: [a, a, e * c],
    "nearly zero and parallel": lambda a, b, c, e: [a, b, e * a],
    "nearly zero and opposite": lambda a, b, c, e: [a, b, -e * a],
    "two nearly zero": lambda a, b, c, e: [a, e * b, e * c],
}


def environments(distances, seed=0):
    """Name -> gradients (3, P) float32."""
    parts = torch.randn(3, P, generator=torch.Generator().manual_seed(seed))
    found = {name: torch.stack(make(*parts)) for name, make in EXACT.items()}
    for name, make in NEAR.items():
        found |= {f"{name}, {e:g}": torch.stack(make(*parts, e)) for e in distances}
    return found


def rounded(gradients, seed):
    """The gradients with each component changed by 1e-7 of itself, up or down."""
    signs = 2.0 * torch.randint(2, gradients.shape, generator=torch.Generator().manual_seed(seed)) - 1
    return (gradients.double() * (1 + SMALLEST * signs)).float()


def rounded_together(gradients):
    """Likewise, but all of a gradient's components up or all down."""
    return (gradients.double() * (1 + SMALLEST * torch.tensor([[1.0], [-1.0], [1.0]]).double())).float()


@pytest.fixture
def combined_by(rule, linear):
    """`combined_by(name, **hparams)`: a function from gradients (3, P) to the combined one (P,), float64.

    It is that of the second update: the first one, of other environments, leaves the method a state.
    """

    def new(name, **hparams):
        method = rule(name, **hparams)
        minibatches = linear(method, torch.ones(P).split([1500, P - 1500]))
        first = torch.randn(3, P, generator=torch.Generator().manual_seed(9)).cumsum(0)
        method.update(minibatches(first))
        state = copy.deepcopy(method.training_state())

        def combine(gradients):
            method.load_training_state(copy.deepcopy(state))
            method.update(minibatches(gradients))
            return torch.cat([parameter.grad for parameter in method.network]).double()

        return combine

    return new


def changes(combine, gradients, changed, of_own_length=False):
    """Change of the combined gradient, relative to the mean length of the gradients."""
    before, after = combine(gradients), combine(changed)
    length = gradients.double().norm(dim=1).mean()
    if of_own_length:
        length = torch.maximum(length, before.norm())
    return ((after - before).norm() / length).item()


def variants(name):
    """Hyper-parameters of the method's own: each other choice, and each greatest value."""
    own = {key: value for key, value in table(name).items() if key not in table("ERM")}
    for key, declared in own.items():
        hparam = resolve(declared, "")
        values = hparam.choices or ([] if hparam.at_most is None else [hparam.at_most])
        yield from ({key: value} for value in values if value != hparam.default)


def test_all_surgeries_are_found():
    assert {"AgrSum", "PCGrad", "AlignedMTL", "IMTLG", "NashMTL", "Aggregation", "ANDMask"} <= set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_rounding_changes_no_combined_gradient(combined_by, name):
    combine = combined_by(name)
    found = {
        case: changes(combine, gradients, rounded(gradients, 1))
        for case, gradients in environments([1e-6]).items()
    }
    assert max(found.values()) <= LARGEST, max(found, key=found.get)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_rounding_changes_no_combined_gradient_at_any_distance_with_any_choice(combined_by, name):
    """If a choice fixes the length, as Nash-MTL's solution does, that is the measure where it is greater."""
    for hparams in ({}, *variants(name)):
        combine = combined_by(name, **hparams)
        for case, g in environments(DISTANCES, seed=1).items():
            for changed in (rounded(g, 1), rounded_together(g)):
                assert changes(combine, g, changed, bool(hparams)) <= LARGEST, (hparams, case)


@pytest.mark.parametrize("name", COMPONENTWISE)
def test_rules_by_signs_jump_in_components_near_zero_alone(rule, name):
    """Every gradient changes by 1e-7 of its greatest component; a tenth of the components are 1e-9 of it."""
    generator = torch.Generator().manual_seed(0)
    g = torch.randn(3, P, generator=generator)
    g[torch.rand(3, P, generator=generator) < 0.1] *= 1e-9
    draws = torch.rand(P, generator=generator)
    change = 1e-7 * g.abs().amax(1, keepdim=True) * (2.0 * torch.randint(2, g.shape, generator=generator) - 1)
    results = []
    for gradients in (g, g + change):
        result = rule(name).combine(Block(gradients, draws))
        results.append(result[0] if isinstance(result, tuple) else result)
    near_zero = (g.abs() < 1e-5).any(0)
    positive, whole = g.clamp_min(0).sum(0), g.abs().sum(0)
    drawn = (positive / whole - draws).abs() < 1e-5  # GradDrop's draw is at the purity
    moved = (results[1] - results[0]).abs()
    assert (moved[~(near_zero | drawn)] <= 1e-5).all()
    assert (moved <= whole + 1e-5).all()
    if name != "GradDrop":  # whose sums of parts are continuous but for the draw
        assert moved[near_zero].max() > 0.1
