"""Saved models with the data of their runs, and the samples that are drawn."""

import dataclasses
import json
import shutil

import pytest
import torch

from domainbed.errors import UsageError
from domainbed.training.model_file import load_model
from domainbed_gs.trained_models.loading import LoadOptions, load, model_file, saved_models
from domainbed_gs.trained_models.samples import draw_samples

CPU = LoadOptions(device="cpu")


@pytest.fixture(scope="module")
def model(finished_run):
    return load(model_file(finished_run), CPU)


def test_a_model_is_loaded_with_the_data_and_splits_of_its_run(finished_run, model):
    assert model.args["algorithm"] == "ERM"
    assert (model.targets, model.sources) == ([0], [1, 2])
    assert not model.algorithm.training
    expected = load_model(finished_run / "model.pkl").state_dict()
    found = model.algorithm.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    record = json.loads((finished_run / "results.jsonl").read_text().splitlines()[-1])
    sizes = {
        f"env{i}_{kind}": len(part) for i, parts in enumerate(model.splits) for kind, part in parts.items()
    }
    assert sizes == record["sizes"]


def test_accuracy_on_a_whole_part_is_that_of_the_record(finished_run, model):
    record = json.loads((finished_run / "results.jsonl").read_text().splitlines()[-1])
    for samples in draw_samples(model, "out", 10_000):
        with torch.no_grad():
            correct = model.algorithm.predict(samples.x).argmax(1) == samples.y
        assert float(correct.double().mean()) == pytest.approx(record[f"env{samples.index}_out_acc"])


def test_samples_are_fixed_and_distinct_and_those_of_every_method(model, train_run, tmp_path):
    drawn = draw_samples(model, "in", 5)
    other = load(model_file(train_run(tmp_path / "irm", algorithm="IRM")), CPU)
    assert other.args["algorithm"] == "IRM"
    for own, again, of_other in zip(
        drawn, draw_samples(model, "in", 5), draw_samples(other, "in", 5), strict=True
    ):
        assert len(own.y) == 5 == len({x.numpy().tobytes() for x in own.x})
        assert torch.equal(own.x, again.x)
        assert torch.equal(own.x, of_other.x)
    assert [each.is_target for each in drawn] == [True, False, False]
    assert [each.index for each in drawn if not each.is_target] == [1, 2]
    assert not torch.equal(draw_samples(model, "in", 5, seed=1)[0].x, drawn[0].x)


def test_a_small_part_gives_all_its_samples(model):
    assert [len(each.y) for each in draw_samples(model, "out", 10_000)] == [
        len(p["out"]) for p in model.splits
    ]


def test_a_part_that_the_sources_lack_is_refused(model):
    with pytest.raises(UsageError, match="no samples in the part 'test' of the source environments "):
        draw_samples(model, "test", 5)
    with pytest.raises(UsageError, match="--parts takes one of in, out, test, not 'uda'"):
        draw_samples(model, "uda", 5)


def test_a_target_that_lacks_the_part_is_left_out_with_a_warning(model, caplog):
    splits = [{"in": parts["in"]} if index == 0 else parts for index, parts in enumerate(model.splits)]
    drawn = draw_samples(dataclasses.replace(model, splits=splits), "out", 5)
    assert [each.index for each in drawn] == [1, 2]
    target = model.dataset.ENVIRONMENTS[0]
    (message,) = caplog.messages
    assert f"warning: no samples in the part 'out' of the target environments {target} of " in message


def test_frozen_stages_are_computed_once_and_the_logits_stay(train_run, tmp_path):
    hparams = json.dumps({"batch_size": 4, "featurizer": "small_cnn", "freeze": "conv1"})
    frozen = load(model_file(train_run(tmp_path / "frozen", hparams=hparams)), CPU)
    stages = frozen.algorithm.featurizer
    (part, *_), (drawn, *_) = [parts["in"] for parts in frozen.splits], draw_samples(frozen, "in", 6)
    assert tuple(drawn.x.shape[1:]) == stages.frozen_shape
    images = torch.stack([part[i][0] for i in range(len(part))])
    outputs = frozen.algorithm.predict(drawn.x)
    logits = frozen.algorithm.predict(images)
    assert all(torch.isclose(logits, each, atol=1e-5).all(1).any() for each in outputs)


def test_a_damaged_or_foreign_file_is_refused_in_one_line(finished_run, tmp_path):
    for name, content in {
        "damaged": (finished_run / "model.pkl").read_bytes()[:-500],
        "foreign": b"no model",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match="is not a model written by train") as caught:
            load(tmp_path / name, CPU)
        assert "\n" not in str(caught.value)
    torch.save({"weights": torch.ones(3)}, tmp_path / "other.pkl")
    with pytest.raises(UsageError, match=r"other\.pkl is damaged, or is not a model"):
        load(tmp_path / "other.pkl", CPU)


def test_a_run_without_a_model_is_refused(tmp_path):
    with pytest.raises(UsageError, match="the run is not finished, or began with --skip_model_save"):
        model_file(tmp_path)
    with pytest.raises(
        UsageError, match=r"nothing\.pkl does not exist; give the directory of a run or a model"
    ):
        model_file(tmp_path / "nothing.pkl")
    with pytest.raises(UsageError, match=r"no run in .* has a model\.pkl"):
        saved_models(tmp_path)
    with pytest.raises(UsageError, match=r"sweep directory .* does not exist"):
        saved_models(tmp_path / "none")
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UsageError, match=f"^{tmp_path} is a run; use --model {tmp_path}$"):
        saved_models(tmp_path)


def test_other_data_than_those_of_the_run_are_refused(finished_run, tmp_path):
    folder = shutil.copytree(finished_run, tmp_path / "run")
    summary = json.loads((folder / "run.json").read_text())
    summary["data"]["checksum"] = "0"
    (folder / "run.json").write_text(json.dumps(summary))
    with pytest.raises(UsageError, match="was trained on other data"):
        load(model_file(folder), CPU)
