"""CLIP's image tower as a featurizer, with tiny models of random weights, offline."""

import json
import logging

import open_clip
import pytest
import torch
import torch.nn.functional as F

from domainbed.algorithms import get_algorithm_class
from domainbed.datasets.image_transforms import IMAGENET_MEAN, IMAGENET_STD
from domainbed.errors import UnknownName, UsageError, describe
from domainbed.hparams_registry import default_hparams
from domainbed.networks import Featurizer
from domainbed.networks.block_outputs import output_shapes
from domainbed.networks.clip_models import _TINY, architecture, published, tokenizer_of
from domainbed.training.config import TrainConfig
from domainbed.training.config_checks import check_config
from domainbed.training.model_file import load_model
from domainbed.training.run import build

HPARAMS = default_hparams("ERM", "PACS") | {"featurizer": "clip", "clip_model": "tiny"}
RESNET = _TINY | {
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None, "head_width": 8}
}


def build_featurizer(side=32, channels=3, **hparams):
    return Featurizer((channels, side, side), HPARAMS | hparams)


@pytest.fixture
def configuration(tmp_path):
    """`configuration(config)`: path of a JSON file with it."""

    def write(config, wrapped=False):
        path = tmp_path / "mine.json"
        path.write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}} if wrapped else config))
        return str(path)

    return write


@pytest.fixture
def saved(tmp_path):
    """A tiny model with weights of its own, and the path of its file."""
    torch.manual_seed(3)
    model = open_clip.CLIP(**architecture("tiny")).eval()
    torch.save(model.state_dict(), tmp_path / "clip.pt")
    return model, str(tmp_path / "clip.pt")


def test_features_are_the_embeddings_of_images_normalised_as_for_clip(saved, configuration):
    model, path = saved
    image = torch.rand(2, 3, 32, 32)
    normalised = [
        (image - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        for mean, std in (
            (IMAGENET_MEAN, IMAGENET_STD),
            (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD),
        )
    ]
    found = build_featurizer(weights_file=path, clip_model=configuration(dict(_TINY))).eval()
    with torch.no_grad():
        torch.testing.assert_close(found(normalised[0]), model.encode_image(normalised[1]))
        unit = build_featurizer(
            weights_file=path, clip_model=configuration(dict(_TINY)), clip_normalise="yes"
        ).eval()
        torch.testing.assert_close(unit(normalised[0]), model.encode_image(normalised[1], normalize=True))
    assert found.n_outputs == 16
    assert found.provenance["name"] == "clip.pt"
    assert not any("text" in name or "token" in name for name in found.state_dict())  # no text tower


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_model_may_be_a_configuration_of_your_own(configuration, wrapped):
    found = build_featurizer(64, clip_model=configuration(RESNET, wrapped), pretrained=False)
    assert found(torch.randn(2, 3, 64, 64)).shape == (2, 16)
    assert isinstance(found.network, open_clip.model.ModifiedResNet)
    with pytest.raises(UsageError, match=r"mine\.json is no configuration of open_clip: it lacks embed_dim"):
        build_featurizer(clip_model=configuration({"embed_dim": 3}))


def test_weights_are_read_from_the_hub_cache_and_published_ones_are_found_by_tag(hub, tmp_path, monkeypatch):
    found = published("ViT-B-16-quickgelu", "")
    assert found.name == "open_clip ViT-B-16-quickgelu (openai)"
    assert (found.repository, found.find()) == ("timm/vit_base_patch16_clip_224.openai", None)
    (hub / "ViT-B-16-quickgelu.openai.pt").write_bytes(b"1")
    assert found.find() == hub / "ViT-B-16-quickgelu.openai.pt"
    from huggingface_hub import constants

    cached = tmp_path / "hf" / "models--laion--CLIP-ViT-B-16-laion2B-s34B-b88K"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    (cached / "snapshots" / ("0" * 40)).mkdir(parents=True)
    file = cached / "snapshots" / ("0" * 40) / "open_clip_pytorch_model.bin"
    file.write_bytes(b"1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    assert published("ViT-B-16", "laion2b_s34b_b88k").find() == file


def test_weights_trained_with_the_other_kind_of_gelu_are_refused():
    with pytest.raises(UsageError, match=r'with QuickGELU, .*: use "clip_model": "ViT-B-16-quickgelu"'):
        published("ViT-B-16", "openai")
    with pytest.raises(UsageError, match="open_clip has no weights 'opnai' of ViT-B-16") as caught:
        published("ViT-B-16", "opnai")
    assert "Did you mean openai?" in describe(caught.value)


def test_mistakes_are_told_in_one_line(saved, configuration, tmp_path, hub):
    _, path = saved
    with pytest.raises(UnknownName, match="CLIP model not found: ViT-B-61"):
        build_featurizer(clip_model="ViT-B-61")
    with pytest.raises(UsageError, match='tiny has no published weights: leave out "weights": "openai"'):
        build_featurizer(weights="openai")
    with pytest.raises(UsageError, match=r"no weights of open_clip .*mine\.json were published; name a file"):
        build_featurizer(clip_model=configuration(dict(_TINY)))
    other = configuration(_TINY | {"embed_dim": 8})
    with pytest.raises(UsageError, match=r"clip\.pt does not fit open_clip .*mine\.json"):
        build_featurizer(clip_model=other, weights_file=path)
    (tmp_path / "broken.pt").write_bytes(b"nothing")
    with pytest.raises(UsageError, match=r"broken\.pt is damaged"):
        build_featurizer(clip_model=other, weights_file=str(tmp_path / "broken.pt"))
    with pytest.raises(UsageError, match="are not on this machine"):
        build_featurizer(224, clip_model="ViT-B-32-quickgelu")


@pytest.mark.parametrize(("side", "channels"), [(32, 1), (48, 3), (28, 2)])
def test_images_of_other_sizes_and_numbers_of_channels(saved, side, channels):
    model, path = saved
    found = build_featurizer(side, channels, weights_file=path)
    assert found(torch.randn(2, channels, side, side)).shape == (2, 16)
    own = model.visual.state_dict()
    changed = {name for name, each in found.network.state_dict().items() if not torch.equal(each, own[name])}
    expected = ({"conv1.weight"} if channels != 3 else set()) | (
        {"positional_embedding"} if side != 32 else set()
    )
    assert changed == expected


def test_open_clip_sets_up_no_logging(configuration):
    before = list(logging.root.handlers)
    build_featurizer(48, clip_model=configuration(dict(_TINY)), pretrained=False)
    assert logging.root.handlers == before


def test_blocks_are_those_that_miro_looks_at(configuration):
    found = build_featurizer(32)
    assert list(found.blocks()) == ["conv1", "blocks.0", "blocks.1"]
    assert output_shapes(found, found.blocks().values(), (3, 32, 32)) == [(32, 4, 4), (17, 32), (17, 32)]
    resnet = build_featurizer(64, clip_model=configuration(RESNET), pretrained=False)
    shapes = output_shapes(resnet, resnet.blocks().values(), (3, 64, 64))
    assert list(resnet.blocks()) == ["stem", "layer1", "layer2", "layer3", "layer4"]
    assert shapes == [(8, 16, 16), (32, 16, 16), (64, 8, 8), (128, 4, 4), (256, 2, 2)]


@pytest.mark.parametrize(
    ("kind", "last", "side"), [("transformer", "blocks.0", 32), ("ResNet", "layer2", 64)]
)
def test_the_first_stages_can_be_frozen(configuration, kind, last, side):
    hparams = {
        "pretrained": False,
        "clip_model": configuration(dict(_TINY) if kind == "transformer" else RESNET),
    }
    plain, frozen = build_featurizer(side, **hparams), build_featurizer(side, freeze=last, **hparams)
    frozen.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, side, side)
    with torch.no_grad():
        torch.testing.assert_close(frozen.eval()(x), plain.eval()(x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(frozen(frozen.frozen_outputs(x)), plain(x), rtol=1e-4, atol=1e-5)
    assert 0 < len(list(frozen.parameters())) < len(list(plain.parameters()))
    assert last not in frozen.blocks()


TEXT = {"clip_head": "text", "class_names": "dog, guitar_case, house"}


@pytest.mark.parametrize(
    "name", ["ERM", "Fish", "DANN", "CAD", "SagNet", "Transfer", "MIRO", "LFME", "AgrSum"]
)
def test_the_classifier_starts_from_text_embeddings_and_gives_zero_shot_logits(saved, name):
    model, path = saved
    hparams = default_hparams(name, "Debug28") | {"featurizer": "clip", "clip_model": "tiny"} | TEXT
    algorithm = get_algorithm_class(name)((3, 32, 32), 3, 2, hparams | {"weights_file": path}).eval()
    texts = [f"a photo of a {each}." for each in ("dog", "guitar case", "house")]
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        image, text, scale = model(x, tokenizer_of("tiny")(texts))
        torch.testing.assert_close(algorithm.predict(x), scale * image @ text.T, rtol=1e-4, atol=1e-5)
    algorithm.train()
    minibatch = (x, torch.tensor([0, 1, 2, 0]))
    algorithm.update([minibatch, minibatch])


def test_embeddings_may_stay_unnormalised_on_request(saved):
    _, path = saved
    x = torch.randn(2, 3, 32, 32)
    plain = build_featurizer(weights_file=path).eval()
    same = build_featurizer(weights_file=path, clip_normalise="no", **TEXT).eval()
    unit = build_featurizer(weights_file=path, **TEXT).eval()
    with torch.no_grad():
        assert torch.equal(plain(x), same(x))
        torch.testing.assert_close(F.normalize(plain(x), dim=-1), unit(x))


@pytest.mark.parametrize(
    ("hparams", "message"),
    [
        ({"class_names": ""}, "clip_head text needs the names of the classes"),
        ({"class_names": "dog, cat"}, "class_names has 2 names, and the dataset 3 classes"),
        ({"nonlinear_classifier": True}, "clip_head text needs a linear classifier"),
        ({"clip_templates": "a photo"}, r"clip_templates takes simple, imagenet, or a template"),
    ],
)
def test_what_a_text_head_needs(hparams, message):
    values = default_hparams("ERM", "Debug28") | HPARAMS | TEXT | hparams
    with pytest.raises(UsageError, match=message):
        get_algorithm_class("ERM")((3, 32, 32), 3, 2, values)


def config(tmp_path, algorithm="ERM", dataset="EmojiStyles", steps=2, **hparams):
    given = {"featurizer": "clip", "clip_model": "tiny", "batch_size": 4} | hparams
    return TrainConfig(
        dataset=dataset, algorithm=algorithm, steps=steps, hparams=json.dumps(given), device="cpu",
        output_dir=str(tmp_path / "run"),
    )  # fmt: skip


def test_a_run_names_the_datasets_classes_and_records_them(tmp_path):
    from domainbed.training.api import train

    train(config(tmp_path, steps=1, clip_head="text"))
    lines = (tmp_path / "run" / "results.jsonl").read_text().splitlines()
    names = json.loads(lines[-1])["hparams"]["class_names"]
    assert names == ", ".join(build(config(tmp_path)).dataset.class_names)
    model = load_model(tmp_path / "run" / "model.pkl")
    assert model.predict(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


def test_a_model_of_your_own_configuration_is_complete_without_its_file(configuration, tmp_path, monkeypatch):
    """Its path may be relative, and mean nothing where the model is used."""
    from domainbed.training.api import train

    path = configuration(dict(_TINY))
    monkeypatch.chdir(tmp_path)
    train(config(tmp_path, steps=1, dataset="Debug28", clip_model="mine.json", pretrained=False))
    (tmp_path / path).unlink()
    record = json.loads((tmp_path / "run" / "results.jsonl").read_text().splitlines()[-1])
    assert json.loads(record["hparams"]["clip_model"]) == _TINY
    assert json.loads(record["args"]["hparams"])["clip_model"] == "mine.json"  # as typed
    model = load_model(tmp_path / "run" / "model.pkl")
    assert model.predict(torch.zeros(1, 3, 28, 28)).shape == (1, 2)


def test_a_method_with_classifiers_of_its_own_refuses_a_text_head(tmp_path):
    with pytest.raises(UsageError, match="clip_head text has no effect in this run, because MTL builds its"):
        build(config(tmp_path, algorithm="MTL", clip_head="text"))


def test_options_of_clip_are_refused_where_nothing_reads_them(tmp_path):
    with pytest.raises(UsageError, match="featurizer small_cnn does not read it"):
        check_config(config(tmp_path, featurizer="small_cnn"))
    with pytest.raises(
        UsageError, match="'clip_templates' has no effect in this run, because 'clip_head' is"
    ):
        check_config(config(tmp_path, clip_templates="simple"))
