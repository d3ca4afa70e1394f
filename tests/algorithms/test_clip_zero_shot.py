"""Zero-shot CLIP, with a tiny model of random weights, offline."""

import json

import open_clip
import pytest
import torch

import domainbed
from domainbed.algorithms.clip_zero_shot import CLIPZeroShot
from domainbed.errors import UsageError
from domainbed.hparams_registry import default_hparams
from domainbed.networks.clip_models import architecture, tokenizer_of
from domainbed.scripts import list as list_script
from domainbed.sweep.flags import parse
from domainbed.sweep.planned_jobs import choose_defaults
from domainbed.training.api import train
from domainbed.training.config import TrainConfig
from domainbed.training.config_checks import check_config
from domainbed.training.model_file import load_model

HPARAMS = default_hparams("CLIPZeroShot", "PACS") | {
    "clip_model": "tiny",
    "class_names": "dog, alarm_clock, bed",
}


@pytest.fixture
def saved(tmp_path):
    """A tiny model with weights of its own, and the path of its file."""
    torch.manual_seed(3)
    model = open_clip.CLIP(**architecture("tiny")).eval()
    with torch.no_grad():
        model.logit_scale.fill_(4.6)  # about that of released models
    torch.save(
        {"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "clip.pt"
    )
    return model, str(tmp_path / "clip.pt")


def made(path, **hparams):
    return CLIPZeroShot((3, 32, 32), 3, 2, HPARAMS | {"weights_file": path} | hparams)


def test_logits_are_clips_with_underscores_as_spaces(saved):
    model, path = saved
    x = torch.randn(5, 3, 32, 32)
    tokens = tokenizer_of("tiny")([f"a photo of a {name}." for name in ("dog", "alarm clock", "bed")])
    image, text, scale = model(x, tokens)
    torch.testing.assert_close(made(path).predict(x), (scale * image @ text.T).detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "number"), [("simple", 7), ("imagenet", 80), ("a {}.|the {}.", 2)])
def test_several_templates_are_averaged_as_in_open_clip(saved, kind, number):
    model, path = saved
    sets = {"simple": open_clip.SIMPLE_IMAGENET_TEMPLATES, "imagenet": open_clip.OPENAI_IMAGENET_TEMPLATES}
    used = sets.get(kind, kind.split("|"))
    assert len(used) == number
    head = open_clip.build_zero_shot_classifier(
        model, tokenizer_of("tiny"), ["dog", "alarm clock", "bed"], used
    )
    found = made(path, clip_templates=kind).head
    torch.testing.assert_close(found, model.logit_scale.exp().detach() * head.T, rtol=1e-4, atol=1e-4)


def test_scaling_an_image_embedding_changes_no_logit(saved):
    algorithm = made(saved[1])
    x = torch.randn(2, 3, 32, 32)
    before = algorithm.predict(x)
    with torch.no_grad():
        algorithm.featurizer.network.proj.mul_(7.0)
    torch.testing.assert_close(algorithm.predict(x), before, rtol=1e-4, atol=1e-4)


def test_nothing_is_trained_and_no_dropout_is_applied(saved):
    algorithm = made(saved[1], vit_dropout=0.5, lr=1.0)
    before = {name: each.clone() for name, each in algorithm.state_dict().items()}
    algorithm.train()
    x, y = torch.randn(6, 3, 32, 32), torch.tensor([0, 1, 2, 0, 1, 2])
    losses = {float(algorithm.update([(x, y), (x, y)])["loss"]) for _ in range(3)}
    assert len(losses) == 1
    assert all(torch.equal(each, before[name]) for name, each in algorithm.state_dict().items())
    assert not any(parameter.requires_grad for parameter in algorithm.parameters())
    assert not any(module.training for module in algorithm.modules())


def test_names_have_to_be_as_many_as_the_classes(saved):
    with pytest.raises(UsageError, match="class_names has 2 names, and the dataset 3 classes"):
        made(saved[1], class_names="dog, bed")


def test_classes_without_names_are_called_by_their_numbers(saved):
    numbered, named = made(saved[1], class_names=""), made(saved[1], class_names="0, 1, 2")
    assert torch.equal(numbered.head, named.head)


def config(tmp_path, **settings):
    hparams = {"clip_model": "tiny"} | settings.pop("hparams", {})
    return TrainConfig(
        **{"algorithm": "CLIPZeroShot", "dataset": "EmojiStyles", "steps": 1, "device": "cpu"} | settings,
        hparams=json.dumps(hparams),
        output_dir=str(tmp_path / "run"),
    )


def test_a_run_needs_one_step_and_saves_a_model(saved, tmp_path):
    train(config(tmp_path, hparams={"weights_file": saved[1]}))
    (record,) = map(json.loads, (tmp_path / "run" / "results.jsonl").read_text().splitlines())
    names = record["hparams"]["class_names"].split(", ")
    assert record["hparams"]["featurizer"] == "clip"
    assert record["weights"]["name"] == "clip.pt"
    expected = CLIPZeroShot(
        (3, 64, 64), 7, 3, HPARAMS | {"weights_file": saved[1], "class_names": ", ".join(names)}
    )
    model = load_model(tmp_path / "run" / "model.pkl")
    x = torch.randn(3, 3, 64, 64)
    assert torch.equal(model.predict(x), expected.predict(x))


def test_a_run_of_several_steps_says_that_one_is_enough(tmp_path, capsys):
    train(config(tmp_path, steps=2, dataset="Debug28"))
    printed = capsys.readouterr()
    assert "CLIPZeroShot trains nothing: --steps 1 gives the same accuracies." in printed.out


def test_a_dataset_whose_classes_have_no_names_is_said(tmp_path, caplog):
    train(config(tmp_path, dataset="Debug28"))
    assert "the classes of Debug28 have no names, and are called 0, 1, ... in prompts" in caplog.text


@pytest.mark.parametrize(
    ("hparams", "reason"),
    [
        ({"featurizer": "resnet18"}, "CLIPZeroShot always has the featurizer clip"),
        ({"optimizer": "SGD"}, "CLIPZeroShot trains nothing"),
        ({"freeze": "all"}, "CLIPZeroShot trains nothing"),
        ({"schedule": "cosine"}, "CLIPZeroShot trains nothing"),
        ({"weight_averaging": "sma"}, "CLIPZeroShot trains nothing"),
    ],
)
def test_what_has_no_effect_is_refused(tmp_path, hparams, reason):
    with pytest.raises(
        UsageError, match=f"'{next(iter(hparams))}' has no effect in this run, because {reason}"
    ):
        check_config(config(tmp_path, hparams=hparams))
    check_config(config(tmp_path, hparams={"featurizer": "clip"}))


def test_weights_that_are_not_at_hand_are_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(UsageError, match=r"open_clip ViT-B-16-quickgelu \(openai\) are not on this machine"):
        domainbed.train(dataset="EmojiStyles", algorithm="CLIPZeroShot", steps=1)


def test_a_sweep_of_all_algorithms_has_those_that_train(tmp_path):
    args = parse(["launch", "--datasets", "Debug28", "--output_dir", str(tmp_path)])
    choose_defaults(args)
    assert "CLIPZeroShot" not in args.algorithms
    assert {"ERM", "LFME", "PCGrad"} <= set(args.algorithms)


def test_it_is_listed(capsys):
    assert list_script.main(["algorithms", "featurizers"]) in (0, None)
    printed = capsys.readouterr().out
    assert "CLIPZeroShot" in printed
    assert "clip" in printed
