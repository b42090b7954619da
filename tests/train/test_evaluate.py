"""Evaluation: figures, robustness, reports and the command line, on a model of known answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from emotion_edge.errors import ModelError
from emotion_edge.model.labels import EMOTIONS
from train.data import Split, load_fer2013
from train.evaluate import (
    Classifier,
    evaluate,
    ferplus,
    load_classifier,
    perturbations,
    robustness,
    score,
)

Train = Callable[..., tuple[int, str, str]]


def template_model(path: Path) -> Path:
    """A linear model that knows where each class of the generated faces has its square."""
    kernel = np.zeros((48, 48, 7), np.float32)
    for label in range(7):
        row, column = divmod(label, 3)
        kernel[4 + 15 * row : 16 + 15 * row, 3 + 15 * column : 15 + 15 * column, label] = 1
    inputs = keras.Input((48, 48, 1))
    flat = keras.layers.Flatten()(inputs)
    dense = keras.layers.Dense(7, activation="softmax")
    model = keras.Model(inputs, dense(flat))
    dense.set_weights([kernel.reshape(-1, 7) / 1500, np.zeros(7, np.float32)])
    model.save(path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return template_model(tmp_path_factory.mktemp("model") / "template.keras")


@pytest.fixture(scope="module")
def public(small: Path, cache: Path) -> Split:
    return load_fer2013(small / "fer2013.csv", cache=cache).split("PublicTest")


def test_a_published_file_is_fed_as_it_was_trained(
    model: Path, public: Split, tmp_path: Path
) -> None:
    """A legacy file without a Rescaling layer, trained on -1..1."""
    network = keras.models.load_model(model)
    kernel, bias = network.layers[-1].get_weights()
    network.layers[-1].set_weights([127.5 * kernel, bias + 127.5 * kernel.sum(axis=0)])
    network.save(tmp_path / "legacy.h5")
    legacy = (tmp_path / "legacy.h5").rename(tmp_path / "legacy.hdf5")
    answer = load_classifier(legacy, scale=1 / 127.5, offset=-1).predict(public.images)
    np.testing.assert_allclose(answer, load_classifier(model).predict(public.images), atol=1e-4)


def test_a_perfect_model_scores_one(public: Split) -> None:
    figures = score(np.eye(7, dtype=np.float32)[public.labels], public, EMOTIONS)
    for key in ("accuracy", "macro_f1", "balanced_accuracy", "without_twins"):
        assert figures[key] == 1
    assert figures["twins"] is None
    assert figures["calibration_error"] == 0
    assert figures["ferplus"]["accuracy"] == 1
    assert set(figures["recall"]) == set(EMOTIONS)
    assert np.trace(figures["confusion"]) == len(public)


def test_twins_are_scored_apart() -> None:
    labels = np.array([0, 1, 2, 3])
    images = np.zeros((4, 48, 48), np.uint8)
    twin = np.array([True, True, False, False])
    split = Split("PrivateTest", images, labels, np.arange(4), None, twin)
    figures = score(np.eye(7, dtype=np.float32)[[0, 1, 2, 4]], split, EMOTIONS)
    assert (figures["twins"], figures["without_twins"], figures["accuracy"]) == (1.0, 0.5, 0.75)
    assert "ferplus" not in figures


def test_ferplus_counts_what_it_drops() -> None:
    votes = np.zeros((5, 10), np.uint8)
    votes[0, 1] = 10  # happy
    votes[1, 0], votes[1, 3] = 5, 5  # no one has more than half
    votes[2, 7] = 8  # contempt
    votes[3, 9] = 9  # not a face
    votes[4, 6] = 6  # fear
    labels = np.array([3, 4, 6, 0, 0])
    split = Split(
        "PublicTest", np.zeros((5, 48, 48), np.uint8), labels, np.arange(5), votes, votes[:, 0] > 99
    )
    answers = np.eye(8, dtype=np.float32)[[3, 4, 7, 0, 0]]
    figures = ferplus(answers[:, :7], split, EMOTIONS)
    assert (figures["images"], figures["accuracy"], figures["original_label"]) == (2, 0.5, 0.5)
    assert figures["dropped"] == {
        "no majority": 1,
        "majority for contempt": 1,
        "majority for unknown": 0,
        "majority for NF": 1,
    }
    eight = ferplus(answers, split, (*EMOTIONS, "contempt"))["eight_classes"]
    assert eight["images"] == 3
    assert eight["accuracy"] == pytest.approx(2 / 3)


def test_robustness_holds_every_perturbation_and_the_plain_faces(public: Split) -> None:
    seen: list[int] = []

    def predict(faces: np.ndarray) -> np.ndarray:
        seen.append(len(faces))
        assert faces.dtype == np.uint8
        assert faces.shape == public.images.shape
        same = (faces == public.images).all(axis=(1, 2))
        return np.where(same[:, None], np.eye(7)[public.labels], np.eye(7)[:1]).astype(np.float32)

    table = robustness(Classifier(Path("x"), EMOTIONS, predict), public)
    assert list(table) == list(perturbations())
    assert table["as it is"] == 1
    assert all(value < 0.5 for name, value in table.items() if name != "as it is")


def test_perturbations_do_what_their_names_say() -> None:
    faces = np.random.default_rng(2).integers(60, 160, (4, 48, 48)).astype(np.uint8)
    done = {
        name: np.stack([way(faces) for way in ways]).astype(float)
        for name, ways in perturbations().items()
    }
    whole = faces.astype(float)
    np.testing.assert_array_equal(done["bright light, half as much again"][0], np.rint(whole * 1.5))
    low = done["low light, a third, with noise"][0]
    assert np.abs((low - whole / 3).mean()) < 0.2
    assert (low - whole / 3).std() == pytest.approx(4, abs=0.2)
    for name, left in (("24 pixels, enlarged", 0.5), ("16 pixels, enlarged", 1 / 3)):
        # Pixels that are independent keep, of their spread, the share of the side and less.
        assert 0.4 * left < done[name].std() / whole.std() < left
        assert done[name].mean() == pytest.approx(whole.mean(), abs=0.5)
    one, two = (done[f"blur, sigma {sigma}"] for sigma in ("1 pixel", "2 pixels"))
    assert two.std() < one.std() < whole.std()


def test_a_moved_box_moves_the_face() -> None:
    y, x = np.mgrid[:48, :48]

    def dot(at_y: float, at_x: float) -> np.ndarray:
        return 200 * np.exp(-((y - at_y) ** 2 + (x - at_x) ** 2) / 8)

    def centre(image: np.ndarray) -> np.ndarray:
        return np.array([(image * y).sum(), (image * x).sum()]) / image.sum()

    ways = perturbations()
    middle = np.rint(dot(23.5, 23.5)).astype(np.uint8)[None]
    moves = [centre(way(middle)[0]) - 23.5 for way in ways["box shifted by 10%"]]
    np.testing.assert_allclose(moves, [[0, 4.8], [0, -4.8], [4.8, 0], [-4.8, 0]], atol=0.1)
    off = np.rint(dot(23.5, 33.5)).astype(np.uint8)[None]
    for name, factor in (("box 10% too small", 1 / 0.9), ("box 10% too large", 1 / 1.1)):
        found = centre(ways[name][0](off)[0]) - 23.5
        np.testing.assert_allclose(found, [0, 10 * factor], atol=0.1)
    turned = [centre(way(off)[0]) - 23.5 for way in ways["rotation of 20 degrees"]]
    side = 10 * np.sin(np.deg2rad(20))
    assert sorted(round(float(dy), 1) for dy, _ in turned) == [-round(side, 1), round(side, 1)]


def test_evaluate_writes_everything(
    model: Path, small: Path, cache: Path, tmp_path: Path, run_train: Train
) -> None:
    words = ["evaluate", model, "--data", small / "fer2013.csv", "--cache", cache]
    words += ["--split", "PrivateTest", "--out", tmp_path / "out"]
    status, out, err = run_train(*words)
    assert status == 0, err
    figures = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert figures["accuracy"] > 0.95
    assert figures["robustness"]["as it is"] > 0.95
    assert "flip_averaged" in figures
    page = (tmp_path / "out" / "evaluation.md").read_text()
    assert page in out + "\n"
    for name in ("confusion.png", "reliability.svg"):
        assert (tmp_path / "out" / name).stat().st_size > 1000
    status, _, err = run_train(*words)
    assert status == 2
    assert "exists already" in err
    assert err.count("\n") == 1
    assert run_train(*words, "--overwrite")[0] == 0


def test_a_model_that_knows_contempt_is_scored_over_eight_classes_too(
    model: Path, small: Path, cache: Path, tmp_path: Path, run_train: Train
) -> None:
    network = keras.models.load_model(model)
    kernel, bias = network.layers[-1].get_weights()
    eight = keras.layers.Dense(8, activation="softmax")
    wider = keras.Model(network.input, eight(network.layers[-2].output))
    eight.set_weights([np.pad(kernel, ((0, 0), (0, 1))), np.append(bias, -9).astype(np.float32)])
    wider.save(tmp_path / "eight.keras")
    words = ["evaluate", tmp_path / "eight.keras", "--data", small / "fer2013.csv"]
    words += ["--cache", cache, "--no-robustness", "--out", tmp_path / "out"]
    status, out, err = run_train(*words)
    assert status == 0, err
    assert (
        "| FER+'s own protocol, 8 outputs for eight classes |" in out and "| contempt | 0 |" in out
    )
    figures = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert figures["macro_f1"] > 0.95  # contempt, which never occurs, does not lower it
    assert figures["balanced_accuracy"] > 0.95


def test_a_tflite_runs_through_the_devices_own_classifier(public: Split) -> None:
    tiny = Path(__file__).parents[1] / "edge" / "tiny.tflite"
    if not tiny.is_file():
        pytest.skip("tests/edge/tiny.tflite is not there")
    from emotion_edge.model.classifier import TFLiteClassifier

    ours = load_classifier(tiny).predict(public.images[:5])
    device = TFLiteClassifier.load(tiny)
    theirs = np.stack([device.probabilities(face) for face in public.images[:5]])
    np.testing.assert_array_equal(ours, theirs)


def test_bad_models_are_named(tmp_path: Path, model: Path) -> None:
    with pytest.raises(ModelError, match="no model at"):
        load_classifier(tmp_path / "none.keras")
    (tmp_path / "bad.keras").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"cannot read .*bad\.keras"):
        load_classifier(tmp_path / "bad.keras")
    with pytest.raises(ModelError, match="7 outputs and the data 2 labels"):
        load_classifier(model, ("a", "b"))


def outputs(model: Path, order: list[int], path: Path) -> Path:
    """The model with only these outputs, in this order."""
    network = keras.models.load_model(model)
    kernel, bias = network.layers[-1].get_weights()
    dense = keras.layers.Dense(len(order), activation="softmax")
    made = keras.Model(network.inputs[0], dense(network.layers[-2].output))
    dense.set_weights([kernel[:, order], bias[order]])
    made.save(path)
    return path


@pytest.mark.parametrize(
    "labels",
    [sorted(EMOTIONS), ["Happiness", "sad", "neutral"], [*EMOTIONS, "contempt"]],
    ids=["permuted", "subset", "superset"],
)
def test_labels_are_matched_by_name(
    labels: list[str], model: Path, small: Path, cache: Path, tmp_path: Path, run_train: Train
) -> None:
    plain = ["happy" if label == "Happiness" else label for label in labels]
    order = [EMOTIONS.index(label) if label in EMOTIONS else 0 for label in plain]
    path = outputs(model, order, tmp_path / "other.keras")
    if "contempt" in labels:  # an output that always loses
        network = keras.models.load_model(path)
        kernel, bias = network.layers[-1].get_weights()
        bias[-1] = -1e3
        network.layers[-1].set_weights([kernel, bias])
        network.save(path)
    words = ["evaluate", path, "--data", small / "fer2013.csv", "--cache", cache, "--no-robustness"]
    status, out, err = run_train(*words, "--labels", ",".join(labels), "--out", tmp_path / "out")
    assert status == 0, err
    figures = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    data = load_fer2013(small / "fer2013.csv", cache=cache)
    known = [at for at, label in enumerate(EMOTIONS) if label in plain]
    part = data.split("PublicTest")
    assert figures["images"] == int(np.isin(part.labels, known).sum())
    assert figures["accuracy"] > 0.9
    assert list(figures["recall"]) == labels
    assert ("labels that the model does not have: angry" in out) == (len(labels) == 3)


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        ("angry,disgust,angry", "more than once (angry, angry)"),
        ("happy,Happiness,sad", "more than once (happy, Happiness)"),
        ("happy,,sad", "an empty name"),
    ],
)
def test_labels_that_name_nothing_or_the_same_are_refused(
    labels: str, line: str, small: Path, tmp_path: Path, run_train: Train
) -> None:
    words = ["evaluate", tmp_path / "any.keras", "--data", small / "fer2013.csv"]
    status, _, err = run_train(*words, "--labels", labels)
    assert status == 2 and line in err and err.count("\n") == 1


def test_soften_needs_a_view(small: Path, tmp_path: Path, run_train: Train) -> None:
    words = ["soften", tmp_path, "--data", small / "fer2013.csv", "--out", tmp_path / "soft.npz"]
    status, _, err = run_train(*words, "--views", "0")
    assert status == 2 and "--views 0: give 1 or more" in err


def test_labels_that_contradict_a_file_are_refused(
    small: Path, tmp_path: Path, run_train: Train
) -> None:
    tiny = Path(__file__).parents[1] / "edge" / "tiny.tflite"
    words = ["evaluate", tiny, "--data", small / "fer2013.csv", "--out", tmp_path / "out"]
    status, _, err = run_train(*words, "--labels", ",".join(sorted(EMOTIONS)))
    assert status == 2 and "omit --labels" in err
    labels = ",".join([*EMOTIONS[:5], "tired", "bored"])
    network = template_model(tmp_path / "m.keras")
    words[1] = network
    status, _, err = run_train(*words, "--labels", labels, "--convention", "people")
    assert status == 2 and "use --convention fer2013" in err


def test_compare_tables_runs(
    model: Path, small: Path, cache: Path, tmp_path: Path, run_train: Train
) -> None:
    data = load_fer2013(small / "fer2013.csv", cache=cache)
    for name in ("one", "two"):
        evaluate(model, data, "PublicTest", tmp_path / name, with_robustness=False)
    status, out, _ = run_train(
        "compare", tmp_path / "one", tmp_path / "two", "--out", tmp_path / "both"
    )
    assert status == 0
    assert out.count("| PublicTest |") == 2
    assert (tmp_path / "both" / "truths.png").is_file()
    status, _, err = run_train("compare", tmp_path / "none", "--out", tmp_path / "c")
    assert status == 2
    assert "contains neither training.json nor evaluation.json" in err


def test_compare_shows_private_test_and_sweeps(
    model: Path, small: Path, cache: Path, tmp_path: Path, run_train: Train
) -> None:
    data = load_fer2013(small / "fer2013.csv", cache=cache)
    runs = []
    for share in (0.5, 0.0):
        runs.append(tmp_path / f"share-{share}")
        score = evaluate(model, data, "PublicTest", tmp_path / "once", with_robustness=False)
        (tmp_path / "once" / "evaluation.json").unlink()
        record = {"PublicTest": score, "config": {"targets": {"raw_votes": share}}}
        runs[-1].mkdir()
        (runs[-1] / "training.json").write_text(json.dumps(record))
    evaluate(model, data, "PrivateTest", runs[0] / "PrivateTest", with_robustness=False)
    words = ["compare", *runs, "--out", tmp_path / "both", "--against"]
    status, out, err = run_train(*words, "targets.raw_votes")
    assert status == 0, err
    first, second = (next(li for li in out.splitlines() if r.name in li) for r in runs)
    assert "PrivateTest: original" in out
    assert first.count("%") == 5 + 3  # no face of this data has a twin
    assert second.endswith("| – | – | – | – |")
    assert (tmp_path / "both" / "sweep.svg").stat().st_size > 1000
    status, _, err = run_train(*words, "targets.share", "--overwrite")
    assert status == 2
    assert "no number 'targets.share'" in err


def test_data_report(small: Path, cache: Path, tmp_path: Path, run_train: Train) -> None:
    words = ["data", "--data", small / "fer2013.csv", "--cache", cache, "--out", tmp_path / "d"]
    status, out, err = run_train(*words)
    assert status == 0, err
    counts = json.loads((tmp_path / "d" / "data.json").read_text())["counts"]
    assert counts == {"Training": [40] * 7, "PublicTest": [10] * 7, "PrivateTest": [10] * 7}
    assert "| happy | 40 | 10 | 10 | 14.3% |" in out
    assert (tmp_path / "d" / "class-happy.png").is_file()


def test_one_line_for_each_mistake(tmp_path: Path, run_train: Train) -> None:
    for words, expected in (
        (["fit", "--config", "nowhere.toml", "--data", tmp_path], "no configuration at"),
        (["data", "--data", tmp_path / "no.csv"], "no data at"),
        (
            ["fit", "--config", "x", "--data", "y", "--set", "epochs=3"],
            "expected SECTION.KEY=VALUE",
        ),
    ):
        status, _, err = run_train(*words)
        assert status == 2
        assert expected in err
        assert err.count("\n") == 1
