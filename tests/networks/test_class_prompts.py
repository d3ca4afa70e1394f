"""Prompts for classes, and the zero-shot head of their embeddings."""

import math

import open_clip
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from domainbed.errors import UsageError
from domainbed.networks.class_prompts import (
    class_directions,
    class_names,
    prompts,
    templates,
    text_of_names,
    zero_shot_head,
)
from domainbed.networks.clip_models import architecture, tokenizer_of


def test_the_head_of_the_golden_vector(vectors):
    """Checked against open_clip's own function, see the specification."""
    golden = vectors("field_networks")["clip_head"]
    text, image = (
        torch.tensor(golden[f"{kind}_embeddings"], dtype=torch.float64) for kind in ("text", "image")
    )
    scale = torch.tensor(golden["logit_scale"], dtype=torch.float64).exp()

    def assert_equal(found, name):
        expected = torch.tensor(golden[name], dtype=torch.float64)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)

    directions = class_directions(text)
    assert_equal(directions, "class_weights")
    assert_equal(scale * directions, "linear_weight")
    image = F.normalize(image, dim=-1)
    assert_equal(F.linear(image, scale * directions), "logits")
    assert_equal(F.linear(image, scale * class_directions(text[:, :1])), "logits_first_template_only")


def numbers(texts):
    return torch.tensor([int(each) for each in texts])


class Stand:
    """A text tower with given embeddings (C, T, D), of texts that are their numbers."""

    training = True

    def __init__(self, embeddings, logit_scale):
        self.embeddings = dict(enumerate(embeddings.flatten(0, 1)))
        self.logit_scale = torch.tensor(logit_scale, dtype=torch.float64)

    def eval(self):
        self.training = False

    def train(self, mode):
        self.training = mode

    def encode_text(self, tokens):
        assert not self.training
        return torch.stack([self.embeddings[int(each)] for each in tokens])


def test_classes_are_embedded_one_after_the_other_in_evaluation_mode(vectors):
    golden = vectors("field_networks")["clip_head"]
    stand = Stand(torch.tensor(golden["text_embeddings"], dtype=torch.float64), golden["logit_scale"])
    head = zero_shot_head(stand, numbers, [["0", "1"], ["2", "3"], ["4", "5"]])
    torch.testing.assert_close(
        head, torch.tensor(golden["linear_weight"], dtype=torch.float64), rtol=1e-9, atol=1e-9
    )
    assert stand.training


@pytest.mark.parametrize("kind", ["a photo of a {}.", "simple", "imagenet"])
def test_the_head_is_open_clips(kind):
    torch.manual_seed(0)
    model = open_clip.CLIP(**architecture("tiny"))
    names = ["alarm clock", "bed"]
    found = zero_shot_head(model, tokenizer_of("tiny"), prompts(["alarm_clock", "bed"], templates(kind)))
    sets = {"simple": open_clip.SIMPLE_IMAGENET_TEMPLATES, "imagenet": open_clip.OPENAI_IMAGENET_TEMPLATES}
    expected = open_clip.build_zero_shot_classifier(
        model, tokenizer_of("tiny"), names, sets.get(kind, [kind])
    )
    torch.testing.assert_close(found, model.logit_scale.detach().exp() * expected.T, rtol=1e-4, atol=1e-5)


@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 10**6), st.floats(0.1, 10))
def test_directions_have_length_1_and_scales_of_embeddings_do_not_matter(n_classes, n_templates, seed, scale):
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(n_classes, n_templates, 5, generator=generator, dtype=torch.float64)
    found = class_directions(embeddings)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(n_classes, dtype=torch.float64))
    torch.testing.assert_close(class_directions(scale * embeddings), found)
    if n_templates == 1:
        torch.testing.assert_close(found, F.normalize(embeddings[:, 0], dim=-1))


@given(st.integers(1, 4), st.integers(0, 10**6), st.floats(0, 5), st.floats(0.1, 10))
def test_a_linear_layer_on_normalised_embeddings_has_the_zero_shot_logits(n_classes, seed, log_scale, length):
    """Lengths of image embeddings do not matter."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.randn(n_classes, 1, 5, generator=generator, dtype=torch.float64)
    image = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    head = zero_shot_head(Stand(text, log_scale), numbers, [[str(i)] for i in range(n_classes)])
    cosines = F.cosine_similarity(image[:, None], text[None, :, 0], dim=-1)
    found = F.linear(F.normalize(length * image, dim=-1), head)
    torch.testing.assert_close(found, math.exp(log_scale) * cosines)


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=5))
def test_names_of_classes_survive_as_text(names):
    assert class_names(text_of_names(names)) == names


def test_names_are_separated_by_commas_or_a_list():
    assert class_names("alarm clock,bed , 7") == ["alarm clock", "bed", "7"]
    assert class_names('["a, b", "c"]') == ["a, b", "c"]
    for text in ("dog,,cat", "[1, 2]", '["a"', '[""]'):
        with pytest.raises(UsageError, match="class_names"):
            class_names(text)


def test_prompts_of_several_templates():
    assert prompts(["Alarm_Clock"], templates("a {}.|the {}")) == [["a Alarm Clock.", "the Alarm Clock"]]
    with pytest.raises(UsageError, match=r"with \{\} for the name of the class"):
        templates("a {} and a {}")
