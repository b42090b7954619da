"""Training on generated faces: it learns, resumes to equal weights, and stops with a word."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from emotion_edge.errors import UsageError
from train import metrics, networks
from train.augment import Augmentation
from train.config import Config, Fit, Targets, load_config, parse_overrides
from train.data import Dataset, load_fer2013
from train.errors import ConfigError, TrainingError
from train.evaluate import load_classifier
from train.export import export, load_run, soften, train
from train.fit import Batches, Run, fit, predict_logits
from train.heads import Heads

TINY = Config(
    name="tiny",
    network="residual",
    options={"stem": [16, 3], "stages": [[16, 2, 0], [32, 2, 1]], "dropout": 0.1},
    targets=Targets(label_share=0.5, votes_head=0.3, mix=0.2),
    augment=Augmentation(flip=False, rotation=5, shift=0.05, erase=0.2),
    fit=Fit(
        epochs=4,
        batch=28,
        optimizer="sgd",
        learning_rate=0.05,
        schedule="cosine",
        warmup_epochs=1,
        weight_decay=1e-3,
        ema=0.9,
        seed=3,
    ),
)


@pytest.fixture(scope="module")
def data(small: Path, cache: Path) -> Dataset:
    return load_fer2013(small / "fer2013.csv", cache=cache)


@pytest.fixture(scope="module")
def trained(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("run") / "tiny"
    config = dataclasses.replace(TINY, fit=dataclasses.replace(TINY.fit, epochs=8))
    model = fit(config, data, folder, tensorboard=False)
    export(model, config, data, folder, save_h5=True)
    yield folder


def with_fit(**changes: object) -> Config:
    return dataclasses.replace(TINY, fit=dataclasses.replace(TINY.fit, **changes))


def test_it_learns_and_leaves_everything_behind(trained: Path, data: Dataset) -> None:
    record = json.loads((trained / "training.json").read_text())
    assert record["PublicTest"]["accuracy"] > 0.9
    assert record["PublicTest"]["ferplus"]["accuracy"] > 0.9
    assert record["epochs"] == 8
    assert record["config"]["fit"]["seed"] == 3
    assert record["data_sha256"] == data.sha256
    lines = (trained / "history.csv").read_text().splitlines()
    assert len(lines) == 9
    assert lines[0].startswith("epoch,accuracy,loss,val_accuracy")
    for name in ("curves.png", "confusion.svg", "mix.png", "report.md", "config.json"):
        assert (trained / name).stat().st_size > 200, name


def test_the_saved_model_is_the_run_with_mix_and_temperature(trained: Path, data: Dataset) -> None:
    faces = data.split("PrivateTest").images
    record = json.loads((trained / "training.json").read_text())
    config, model = load_run(trained, data)
    label, votes = np.split(predict_logits(model, faces), 2, axis=1)
    logits = (1 - config.targets.mix) * label + config.targets.mix * votes
    saved = load_classifier(trained / "model.keras").predict(faces)
    np.testing.assert_allclose(saved, metrics.softmax(logits / record["temperature"]), atol=1e-4)
    legacy = load_classifier(trained / "model.h5").predict(faces)
    np.testing.assert_allclose(legacy, saved, atol=1e-6)


def test_any_point_of_the_curve_is_exported_again(
    trained: Path,
    small: Path,
    cache: Path,
    tmp_path: Path,
    run_train: Callable[..., tuple[int, str, str]],
) -> None:
    words = ["export", trained / "model.keras", "--data", small, "--cache", cache]
    status, out, err = run_train(*words, "--mix", 1, "--tau", 0.25, "--out", tmp_path / "a.keras")
    assert status == 0, err
    assert "people convention, mix 1, tau 0.25" in out
    faces = load_fer2013(small / "fer2013.csv", cache=cache).split("PublicTest").images
    found = Heads.load(trained / "heads.npz")
    model = keras.models.load_model(trained / "model.keras")
    features = networks.trunk(model).predict(faces[..., None].astype(np.float32), verbose=0)
    kernel, bias = found.heads["votes"]
    logits = features @ kernel + bias - 0.25 * np.log(found.shares["votes"])
    record = json.loads((tmp_path / "training.json").read_text())
    np.testing.assert_allclose(
        load_classifier(tmp_path / "a.keras").predict(faces),
        metrics.softmax(logits / record["temperature"]),
        atol=1e-4,
    )
    status, _, err = run_train(*words, "--classes", 8, "--out", tmp_path / "eight" / "e.keras")
    assert status == 0, err
    eight = load_classifier(tmp_path / "eight" / "e.keras")
    assert eight.labels[-1] == "contempt"
    assert json.loads((tmp_path / "eight" / "training.json").read_text())["labels"][-1] == (
        "contempt"
    )
    status, _, err = run_train(*words, "--mix", 1)
    assert status == 2
    assert "needs --out" in err


def test_a_configuration_starts_from_an_exported_model(
    trained: Path, data: Dataset, tmp_path: Path
) -> None:
    config = dataclasses.replace(
        with_fit(epochs=1, learning_rate=0.0, ema=0.0),
        start=str(trained / "model.keras"),
        path=tmp_path / "next.toml",
    )
    train(config, data, tmp_path / "next", tensorboard=False)
    first, second = (load_run(folder, data)[1] for folder in (trained, tmp_path / "next"))
    for one, two in zip(first.trainable_weights, second.trainable_weights, strict=True):
        np.testing.assert_allclose(one.numpy(), two.numpy(), atol=1e-6)


def test_a_teacher_teaches(trained: Path, data: Dataset, tmp_path: Path) -> None:
    soften([trained], data, tmp_path / "soft.npz", views=2)
    with np.load(tmp_path / "soft.npz") as store:
        assert store["probabilities"].shape == (280, 2, 7)
        assert store["probabilities"].dtype == np.float16
        np.testing.assert_allclose(store["probabilities"].sum(axis=2), 1, atol=2e-2)
    student = dataclasses.replace(
        with_fit(epochs=1),
        targets=dataclasses.replace(TINY.targets, soft_labels="soft.npz", soft_share=1.0),
        path=tmp_path / "student.toml",
    )
    fit(student, data, tmp_path / "student", tensorboard=False)
    lost = dataclasses.replace(student, path=tmp_path / "elsewhere" / "student.toml")
    with pytest.raises(ConfigError, match="no soft labels"):
        fit(lost, data, tmp_path / "lost", tensorboard=False)


@pytest.mark.parametrize("name", ["fast", "accurate"])
def test_a_shipped_model_can_teach(name: str, data: Dataset) -> None:
    folder = Path(__file__).parents[2] / "models" / name
    config, model = load_run(folder, data)
    faces = data.split("PublicTest").images[:8]
    _, votes = np.split(predict_logits(model, faces), 2, axis=1)
    record = json.loads((folder / "training.json").read_text())
    shares = Heads.load(folder / "heads.npz").shares["votes"]
    logits = (votes - config.targets.tau * np.log(shares)) / record["temperature"]
    exported = keras.models.load_model(folder / f"{name}.keras", compile=False)
    np.testing.assert_allclose(
        metrics.softmax(logits), predict_logits(exported, faces), rtol=0, atol=1e-5
    )


def test_a_configuration_goes_on_from_the_one_it_comes_after(
    small: Path, cache: Path, tmp_path: Path, run_train: Callable[..., tuple[int, str, str]]
) -> None:
    text = tiny_toml(tmp_path).read_text()
    still = text.replace("3e-3", "0.0").replace("epochs = 2", "epochs = 1").replace("ema = 0.8", "")
    (tmp_path / "more.toml").write_text(f'after = "tiny.toml"\n{still}')
    words = ["fit", "--config", tmp_path / "more.toml", "--data", small, "--cache", cache]
    words += ["--out", tmp_path / "runs" / "mine", "--no-tensorboard"]
    status, _, err = run_train(*words)
    assert status == 0, err
    record = json.loads((tmp_path / "runs" / "mine" / "training.json").read_text())
    assert [(stage["name"], stage["epochs"]) for stage in record["stages"]] == [
        ("tiny", 2),
        ("more", 1),
    ]
    data = load_fer2013(small / "fer2013.csv", cache=cache)
    first, second = (load_run(tmp_path / "runs" / name, data)[1] for name in ("tiny", "mine"))
    for one, two in zip(first.trainable_weights, second.trainable_weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy())  # nothing is learnt at rate 0

    before = (tmp_path / "runs" / "tiny" / "model.keras").stat().st_mtime_ns
    assert run_train(*words, "--overwrite")[0] == 0
    assert (tmp_path / "runs" / "tiny" / "model.keras").stat().st_mtime_ns == before
    tiny_toml(tmp_path, precision="mixed_bfloat16")  # no longer what runs/tiny was trained by
    words[words.index("--out") + 1] = tmp_path / "runs" / "other"
    status, _, err = run_train(*words)
    assert status == 2
    assert "tiny/model.keras exists already" in err


@pytest.mark.parametrize(("first", "out"), [("tiny", "more"), ("more", "tiny")])
def test_two_stages_in_one_folder_are_refused_before_any_is_trained(
    first: str, out: str, small: Path, cache: Path, tmp_path: Path, run_train: Callable[..., Any]
) -> None:
    text = tiny_toml(tmp_path).read_text()
    (tmp_path / "more.toml").write_text(f'after = "tiny.toml"\n{text}')
    if first == "tiny":  # a circle
        (tmp_path / "tiny.toml").write_text(f'after = "more.toml"\n{text}')
    words = ["fit", "--config", tmp_path / "more.toml", "--data", small, "--cache", cache]
    status, _, err = run_train(*words, "--out", tmp_path / "runs" / out, "--no-tensorboard")
    assert status == 2
    assert f"runs/{out}, the folder of a later stage" in err
    assert not (tmp_path / "runs").exists()


def test_a_killed_run_resumes_to_equal_weights(data: Dataset, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def die(self: Run, epoch: int, logs: object = None) -> None:
        original_begin(self, epoch, logs)
        if epoch == 2:
            raise Killed

    whole = fit(TINY, data, tmp_path / "whole", deterministic=True, tensorboard=False)
    original_begin = Run.on_epoch_begin
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "on_epoch_begin", die)
        with pytest.raises(Killed):
            fit(TINY, data, tmp_path / "broken", deterministic=True, tensorboard=False)
    resumed = fit(TINY, data, tmp_path / "broken", deterministic=True, tensorboard=False)
    for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    histories = [
        [
            line.rsplit(",", 1)[0]
            for line in (tmp_path / name / "history.csv").read_text().splitlines()
        ]
        for name in ("whole", "broken")
    ]
    assert histories[0] == histories[1]


def test_a_loss_that_is_not_a_number_stops_the_run(data: Dataset, tmp_path: Path) -> None:
    wild = with_fit(learning_rate=1000.0, schedule="constant", epochs=3)
    with pytest.raises(TrainingError, match=r"the loss .*is (nan|inf).* lower learning_rate"):
        fit(wild, data, tmp_path / "wild", tensorboard=False)


def test_early_stop_and_best(data: Dataset, tmp_path: Path) -> None:
    lazy = with_fit(learning_rate=0.0, schedule="constant", epochs=9, early_stop=2, keep="best")
    fit(lazy, data, tmp_path / "lazy", tensorboard=False)
    assert len((tmp_path / "lazy" / "history.csv").read_text().splitlines()) == 1 + 3


@pytest.mark.parametrize("balance", ["oversample", "weights"])
def test_balancing_lifts_the_rare_class(
    balance: str, small: Path, cache: Path, tmp_path: Path
) -> None:
    data = load_fer2013(small / "fer2013.csv", cache=cache)
    train = data.split("Training")
    rare = (train.labels != 1) | (np.arange(len(train)) < 60)
    data = dataclasses.replace(data, splits={**data.splits, "Training": train.select(rare)})
    config = dataclasses.replace(with_fit(epochs=2), targets=Targets(balance=balance))
    seen: list[Batches] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "on_train_begin", lambda self, logs=None: seen.append(self.batches))
        model = fit(config, data, tmp_path / "run", tensorboard=False)
    assert np.isfinite(predict_logits(model, train.images[:4])).all()
    batches = seen[0]
    share = np.zeros(7)
    for epoch in range(20):
        batches.epoch = epoch
        share += sum(batches[at][1].sum(axis=0) for at in range(len(batches)))
    assert share.max() < 1.25 * share.min()  # of rows the rare class has a quarter
    with pytest.raises(ConfigError, match="balance must be"):
        odd = dataclasses.replace(config, targets=Targets(balance="both"))
        fit(odd, data, tmp_path / "odd", tensorboard=False)


def test_another_configuration_does_not_continue_a_run(data: Dataset, tmp_path: Path) -> None:
    fit(with_fit(epochs=1), data, tmp_path / "run", tensorboard=False)
    with pytest.raises(TrainingError, match="another configuration"):
        fit(with_fit(epochs=2), data, tmp_path / "run", tensorboard=False)


TWO_DEVICES = """
import sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
sys.argv = ["train", "fit", *sys.argv[1:]]
from train.__main__ import main
sys.exit(main())
"""


def tiny_toml(folder: Path, precision: str = "float32") -> Path:
    path = folder / "tiny.toml"
    path.write_text(
        '[network]\nname = "residual"\nstem = [16, 3]\nstages = [[16, 2, 0], [32, 2, 1]]\n'
        "[fit]\nepochs = 2\nbatch = 28\nlearning_rate = 3e-3\n"
        f'ema = 0.8\nprecision = "{precision}"\n'
    )
    return path


def test_two_logical_devices_train_by_one_switch(small: Path, cache: Path, tmp_path: Path) -> None:
    words = ["--config", tiny_toml(tmp_path), "--data", small, "--cache", cache, "--devices", 2]
    done = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES, *map(str, words), "--out", str(tmp_path / "two")],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "two" / "model.keras").is_file()


ON_JAX = """
import os, sys

class NoTensorFlow:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "tensorboard"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoTensorFlow())
killed = int(sys.argv[1])
from train.__main__ import main
from train.fit import Run

begin = Run.on_epoch_begin
Run.on_epoch_begin = lambda self, epoch, logs=None: (
    os._exit(9) if epoch == killed else begin(self, epoch, logs)
)
status = main(["fit", *sys.argv[2:]])
assert not {"tensorflow", "tensorboard"} & set(sys.modules)
sys.exit(status)
"""


def on_jax(*words: object, devices: int = 1, killed: int = 0) -> int:
    """``fit`` on JAX in an interpreter without TensorFlow; it dies at the epoch ``killed``."""
    done = subprocess.run(
        [sys.executable, "-c", ON_JAX, str(killed or 99), *map(str, words)],
        env=os.environ
        | {
            "KERAS_BACKEND": "jax",
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        },
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode in (0, 9), done.stderr[-2000:]
    return done.returncode


def test_jax_trains_what_tensorflow_converts(small: Path, cache: Path, tmp_path: Path) -> None:
    pytest.importorskip("jax", reason="no JAX: pip install '.[jax]'")
    from convert.__main__ import main as convert

    words = ["--config", tiny_toml(tmp_path), "--data", small, "--cache", cache]
    words += ["--deterministic", "--set", "fit.epochs=8", "--out"]
    assert on_jax(*words, tmp_path / "whole") == 0
    assert on_jax(*words, tmp_path / "broken", killed=2) == 9
    assert not (tmp_path / "broken" / "model.keras").exists()
    assert on_jax(*words, tmp_path / "broken") == 0
    with (
        np.load(tmp_path / "whole" / "checkpoint.npz") as whole,
        np.load(tmp_path / "broken" / "checkpoint.npz") as broken,
    ):
        assert whole.files == broken.files
        for name in set(whole.files) - {"history"}:  # which holds the seconds
            np.testing.assert_array_equal(whole[name], broken[name], err_msg=name)

    data = load_fer2013(small / "fer2013.csv", cache=cache)
    record = json.loads((tmp_path / "whole" / "training.json").read_text())
    assert record["hardware"].endswith("on jax")
    assert record["PublicTest"]["accuracy"] > 0.9
    model = load_classifier(tmp_path / "whole" / "model.keras")  # by TensorFlow, in this process
    public = data.split("PublicTest")
    right = np.mean(model.predict(public.images).argmax(axis=1) == public.labels)
    assert right == pytest.approx(record["PublicTest"]["accuracy"], abs=0.5 / len(public))
    out = tmp_path / "tiny-int8.tflite"
    told = ["--data", str(small / "fer2013.csv"), "--out", str(out)]
    assert convert([str(tmp_path / "whole" / "model.keras"), *told]) == 0
    answers = load_classifier(out).predict(public.images).argmax(axis=1)
    assert np.mean(answers == public.labels) > 0.9


def test_jax_goes_from_data_to_soft_labels_without_tensorflow(
    small: Path, cache: Path, tmp_path: Path
) -> None:
    pytest.importorskip("jax", reason="no JAX: pip install '.[jax]'")
    words = ["--config", tiny_toml(tmp_path), "--data", small, "--cache", cache]
    words += ["--set", "fit.epochs=1", "--set", "fit.batch=140", "--out", tmp_path / "run"]
    assert on_jax(*words, "--soft-labels", tmp_path / "soft.npz") == 0  # two steps
    with np.load(tmp_path / "soft.npz") as store:
        assert store["probabilities"].shape == (280, 1, 7)
        np.testing.assert_allclose(store["probabilities"].sum(axis=2), 1, atol=2e-2)


def test_jax_spreads_a_batch_over_two_devices(small: Path, cache: Path, tmp_path: Path) -> None:
    pytest.importorskip("jax", reason="no JAX: pip install '.[jax]'")
    words = ["--config", tiny_toml(tmp_path), "--data", small, "--cache", cache]
    words += ["--devices", 2, "--set", "fit.epochs=1", "--out", tmp_path / "two"]
    assert on_jax(*words, devices=2) == 0
    assert (tmp_path / "two" / "model.keras").is_file()


def test_set_takes_toml_or_bare_text() -> None:
    pairs = ["fit.epochs=3", "fit.optimizer=sgd", 'targets.soft_labels="a b.npz"']
    pairs += ["augment.erase_area=0.1,0.2", "network.width=32", "fit.learning_rate=1e-2"]
    assert parse_overrides(pairs) == {
        "fit": {"epochs": 3, "optimizer": "sgd", "learning_rate": 0.01},
        "targets": {"soft_labels": "a b.npz"},
        "augment": {"erase_area": [0.1, 0.2]},
        "network": {"width": 32},
    }
    with pytest.raises(UsageError, match=r"unknown key fit.epoch; did you mean fit.epochs"):
        parse_overrides(["fit.epoch=3"])
    with pytest.raises(UsageError, match=r"expected SECTION.KEY=VALUE"):
        parse_overrides(["epochs=3"])


def test_configurations_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "odd.toml"
    path.write_text('[network]\nname = "simple"\n[fit]\nepoch = 3\n')
    with pytest.raises(ConfigError, match=r"unknown key fit.epoch; did you mean fit.epochs\?"):
        load_config(path)
    path.write_text('[network]\nname = "simple"\n[fit]\nepochs = "three"\n')
    with pytest.raises(ConfigError, match=r"fit.epochs is 'three'; expected a whole number"):
        load_config(path)
    path.write_text('[network]\nname = "simple"\n[fit]\nlearning_rate = inf\n')
    with pytest.raises(ConfigError, match=r"fit.learning_rate is inf: use 0 to 1,000"):
        load_config(path)
    path.write_text("[fit]\nepochs = 3\n")
    with pytest.raises(ConfigError, match="network is missing"):
        load_config(path)
    with pytest.raises(ConfigError, match="shipped ones are in train/configs: accurate"):
        load_config(tmp_path / "none.toml")
    for shipped in (Path(__file__).parents[2] / "train/configs").glob("*.toml"):
        assert load_config(shipped).fit.epochs > 0
