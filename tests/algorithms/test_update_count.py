import pytest

from domainbed.algorithms.base import Algorithm
from domainbed.algorithms.update_count import AlternatingUpdates


class Alternating(AlternatingUpdates, Algorithm):
    pass


@pytest.mark.parametrize(
    ("d_steps", "order"), [(0, "gggggg"), (1, "gdgdgd"), (2, "dgddgd"), (3, "ddgddd"), (7, "ddddddg")]
)
def test_the_discriminator_has_d_updates_for_each_of_the_generator(d_steps, order):
    algorithm = Alternating((1,), 2, 2, {"d_steps_per_g_step": d_steps})
    assert "".join("gd"[algorithm.is_discriminator_update()] for _ in order) == order
    assert algorithm.update_count.tolist() == [len(order)]
