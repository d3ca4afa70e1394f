"""ADRMX: order of updates, the remix loss and the switches."""

import pytest
import torch
import torch.nn.functional as F

from domainbed.algorithms import get_algorithm_class
from domainbed.hparams_registry import default_hparams

CLASSES = 4


def make(**overrides):
    torch.manual_seed(0)
    hparams = default_hparams("ADRMX", "Debug28") | {"mlp_width": 16, "mlp_depth": 3} | overrides
    return get_algorithm_class("ADRMX")((5,), CLASSES, 2, hparams)


def minibatches(*labels):
    torch.manual_seed(1)
    return [(torch.randn(len(y), 5), torch.tensor(y)) for y in labels]


def test_discriminator_and_other_updates_change_their_own_parts_only():
    algorithm, batches = make(), minibatches([0, 1, 0, 2], [1, 1, 2])
    found = []
    for _ in range(6):
        before = {name: parameter.clone() for name, parameter in algorithm.named_parameters()}
        values = algorithm.update(batches)
        after = dict(algorithm.named_parameters())
        changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
        found.append((len(values), changed))
    discriminator = (1, {"discriminator"})
    others = (8, {n for n, _ in algorithm.named_children() if n[:10] in ("featurizer", "classifier")})
    assert found == [discriminator, others, discriminator] * 2


LABELS = torch.tensor([3, 0, 3, 2, 3, 0, 3, 1])


@pytest.mark.parametrize("within_class", [False, True])
def test_remixed_samples_are_drawn_as_in_upstream_or_within_the_class(within_class):
    algorithm = make(remix_within_class=within_class)
    torch.manual_seed(3)
    pairs = algorithm._remix_pairs(LABELS)
    after = torch.rand(1)
    torch.manual_seed(3)
    orders = [torch.randperm((label == LABELS).sum()) for label in range(CLASSES)]
    assert torch.equal(torch.rand(1), after)  # nothing but one permutation for each class is drawn
    positions = [orders[0][:2], orders[3][:2]]  # the classes with two samples
    if within_class:
        members = [(label == LABELS).nonzero().flatten() for label in (0, 3)]
        positions = [each[order] for each, order in zip(members, positions, strict=True)]
        assert LABELS[pairs].tolist() == [[0, 0], [3, 3]]
    assert torch.equal(pairs, torch.stack(positions))


def test_the_remix_loss_equals_a_loop_over_classes(float64):
    algorithm = make()
    final, domain = torch.randn(8, 16), torch.randn(8, 16)
    torch.manual_seed(3)
    loss = algorithm._remix_loss(final, domain, LABELS)
    torch.manual_seed(3)
    expected = 0.0
    for a, b in algorithm._remix_pairs(LABELS).tolist():
        logits = algorithm.classifier_label_1((final[a] + domain[b])[None])
        expected += F.cross_entropy(logits, LABELS[a][None]).item() / CLASSES
    assert loss.item() == pytest.approx(expected)


def test_without_a_class_of_two_samples_the_remix_loss_is_0():
    """Upstream raises."""
    values = make(d_steps_per_g_step=0).update(minibatches([0, 1], [3]))
    assert float(values["loss_remixed"]) == 0
    assert all(torch.tensor(float(value)).isfinite() for value in values.values())


@pytest.mark.parametrize(("switch", "decay"), [(False, 0.0), (True, 0.25)])
def test_weight_decay_is_applied_with_the_switch_only(switch, decay):
    algorithm = make(weight_decay=0.25, use_weight_decay=switch)
    for optimizer in (algorithm.disc_opt, algorithm.opt):
        assert [group["weight_decay"] for group in optimizer.param_groups] == [decay]


def test_the_total_is_the_weighted_sum_of_the_logged_losses():
    weights = {"cnt_lambda": 0.5, "dclf_lambda": 2.0, "disc_lambda": 3.0, "rmxd_lambda": 5.0}
    values = make(d_steps_per_g_step=0, **weights).update(minibatches([0, 1, 0, 2], [1, 1, 2]))
    v = {name.removeprefix("loss_"): float(value) for name, value in values.items()}
    expected = v["clf_int"] + v["clf_fin"] + 2 * v["dmn"] + 5 * v["remixed"] - 3 * v["disc"]
    assert v["total"] == pytest.approx(expected + 0.5 * (v["cnt_int"] + v["cnt_final"]), rel=1e-5)
