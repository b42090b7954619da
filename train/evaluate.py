"""Scores a model, float or int8, with the same metrics and the same code.

>>> classifier = load_classifier("models/fast/fast-int8.tflite")
>>> figures = score(classifier.predict(split.images), split, classifier.labels)
>>> figures["accuracy"]

A ``.tflite`` runs through ``emotion_edge``'s own classifier, the class that runs on the device.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_edge.errors import ModelError, UsageError
from emotion_edge.model.labels import EMOTIONS
from emotion_edge.model.manifest import InputSpec
from emotion_edge.model.preprocessing import resize_to_input
from train import metrics, plots, targets
from train.augment import affine, warp
from train.data import VOTES, Dataset, Split
from train.files import refuse_existing, table, write_json, write_text
from train.readers import WITH_CONTEMPT

if TYPE_CHECKING:
    from emotion_edge.model.classifier import TFLiteClassifier

Faces = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Classifier:
    """A model file ready to answer: ``predict`` takes uint8 (N, 48, 48), gives (N, labels)."""

    path: Path
    labels: tuple[str, ...]
    predict: Callable[[Faces], Floats]
    convention: str = ""
    """As the manifest states it; empty where the file does not say."""


def load_classifier(
    path: str | Path,
    labels: tuple[str, ...] = EMOTIONS,
    *,
    scale: float = 1.0,
    offset: float = 0.0,
) -> Classifier:
    """Open a ``.keras``, ``.h5``, ``.hdf5`` or ``.tflite``.

    A ``.tflite`` states its own labels and input; a Keras file does not: ``labels`` name its
    outputs, with contempt after the seven emotions if it has one more; its input is
    pixel * ``scale`` + ``offset``.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"no model at {path}: give a .keras or .tflite file")
    if path.suffix == ".tflite":
        from emotion_edge.model.classifier import TFLiteClassifier

        return of_device(TFLiteClassifier.load(path), path)
    if path.suffix not in (".keras", ".h5", ".hdf5"):
        raise ModelError(f"{path} is not a model by its name: give a .keras, .h5 or .tflite file")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras

    try:
        model = keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras raises whatever its many readers raise
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"Keras {keras.__version__} cannot read {path}: {reason}") from error
    _, height, width, channels = model.input_shape
    if labels == EMOTIONS and model.output_shape[-1] == len(WITH_CONTEMPT):
        labels = WITH_CONTEMPT
    if model.output_shape[-1] != len(labels):
        raise ModelError(
            f"{path} has {model.output_shape[-1]} outputs and the data {len(labels)} labels "
            f"({', '.join(labels)}): name its outputs with --labels a,b,c, in their order"
        )

    spec = InputSpec(height, width, channels, "gray" if channels == 1 else "rgb")

    def predict_keras(faces: Faces) -> Floats:
        sized = np.stack([resize_to_input(face, spec) for face in faces])
        batch = sized.reshape(-1, height, width, channels).astype(np.float32) * scale + offset
        # Not predict(): its data adapter costs more than the network on sets this small.
        parts = [
            keras.ops.convert_to_numpy(model(batch[at : at + 256]))
            for at in range(0, len(batch), 256)
        ]
        answer = np.concatenate(parts).astype(np.float32)
        if answer.min() < 0 or abs(float(answer[0].sum()) - 1) > 1e-2:  # logits
            answer = metrics.softmax(answer)
        return answer

    return Classifier(path, labels, predict_keras)


def of_device(device: TFLiteClassifier, path: Path) -> Classifier:
    """The device's classifier, its faces brought to the size and colour it takes."""
    spec = device.manifest.input

    def predict(faces: Faces) -> Floats:
        return device.predict(np.stack([resize_to_input(face, spec) for face in faces]))

    return Classifier(path, device.labels, predict, device.manifest.convention)


# --- figures ----------------------------------------------------------------------------------


def score(
    probabilities: Floats,
    split: Split,
    labels: tuple[str, ...],
    *,
    flipped: Floats | None = None,
    convention: str = "fer2013",
) -> dict[str, Any]:
    """Every figure about one set of predictions, as plain values ready for JSON.

    ``probabilities`` is (N, labels) for ``split``; ``flipped`` the same for mirrored faces.
    Shares are fractions of one. ``convention`` decides what counts as correct
    (``targets.judged``); ``ferplus`` and ``original_labels`` always hold the figures of both.
    """
    rows, truth = targets.judged(split, convention, len(labels))
    answers, twin = probabilities[rows], split.twin[rows]
    predicted = answers.argmax(axis=1)
    right = predicted == truth
    matrix = metrics.confusion_matrix(truth, predicted, len(labels))
    low, high = metrics.wilson_interval(int(right.sum()), len(right))
    recall, precision = metrics.recall(matrix), metrics.precision(matrix)
    present = matrix.sum(axis=1) > 0
    figures: dict[str, Any] = {
        "split": split.name,
        "convention": convention,
        "images": len(rows),
        "accuracy": float(right.mean()),
        "accuracy_interval": [low, high],
        "without_twins": _share(right[~twin]),
        "without_twins_images": int((~twin).sum()),
        "twins": _share(right[twin]),
        "twins_images": int(twin.sum()),
    }
    if flipped is not None:
        both = (answers + flipped[rows]).argmax(axis=1)
        figures["flip_averaged"] = float((both == truth).mean())
    figures |= {
        "macro_f1": metrics.macro_f1(matrix),
        "balanced_accuracy": float(recall[present].mean()),
        "recall": dict(zip(labels, recall.tolist(), strict=True)),
        "precision": dict(zip(labels, precision.tolist(), strict=True)),
        "calibration_error": metrics.calibration_error(answers, truth),
        "calibration_noise": metrics.calibration_noise(answers),
        "negative_log_likelihood": float(
            -np.log(np.maximum(answers[np.arange(len(truth)), truth], 1e-9)).mean()
        ),
        "confusion": matrix.tolist(),
    }
    if labels == EMOTIONS:
        figures["recall_six"] = metrics.mean_recall(truth, predicted)[1]
    if split.votes is not None and labels[: len(EMOTIONS)] == EMOTIONS:
        figures["ferplus"] = ferplus(probabilities, split, labels)
    if convention != "fer2013":
        right = probabilities.argmax(axis=1) == split.labels
        figures["original_labels"] = {
            "accuracy": float(right.mean()),
            "images": len(split),
            "without_twins": _share(right[~split.twin]),
        }
    return figures


def _share(right: NDArray[np.bool_]) -> float | None:
    return float(right.mean()) if len(right) else None


def ferplus(probabilities: Floats, split: Split, labels: tuple[str, ...]) -> dict[str, Any]:
    """Accuracy against FER+'s majority: over our seven emotions, and over the literature's eight.

    Seven: rows where one of the seven has more than half of all ten votes. Eight: FER+'s own
    protocol (``targets.ferplus_protocol``); a model without contempt gets those faces wrong. The
    dropped rows are counted by reason, because they move the figure.
    """
    assert split.votes is not None
    votes = split.votes
    wanted, clear = targets.majority(votes)
    seven = probabilities[:, : len(EMOTIONS)].argmax(axis=1)
    peak = votes.argmax(axis=1)
    half = votes.max(axis=1).astype(np.int64) * 2 > votes.sum(axis=1)
    reasons = {
        f"majority for {VOTES[code]}": int((half & (peak == code)).sum()) for code in (7, 8, 9)
    }
    eight, kept = targets.ferplus_protocol(votes)
    return {
        "accuracy": _share((seven == wanted)[clear]),
        "images": int(clear.sum()),
        "original_label": _share((split.labels == wanted)[clear]),
        "dropped": {"no majority": int((~half).sum()), **reasons},
        "eight_classes": {
            "accuracy": _share((probabilities.argmax(axis=1) == eight)[kept]),
            "images": int(kept.sum()),
            "outputs": len(labels),
        },
    }


# --- robustness -------------------------------------------------------------------------------


def _moved(
    faces: Faces, *, angle: float = 0.0, scale: float = 1.0, x: float = 0.0, y: float = 0.0
) -> Faces:
    def each(value: float) -> Floats:
        return np.full(len(faces), value, np.float32)

    side = faces.shape[1]
    return warp(
        faces,
        affine(
            angle=each(np.deg2rad(angle)),
            scale_x=each(scale),
            scale_y=each(scale),
            shift_x=each(x * side),
            shift_y=each(y * side),
        ),
    )


def _blurred(faces: Faces, sigma: float) -> Faces:
    return np.stack([np.asarray(cv2.GaussianBlur(face, (0, 0), sigma), np.uint8) for face in faces])


def _enlarged(faces: Faces, side: int) -> Faces:
    """As a face of ``side`` pixels looks once it fills the network's input."""
    whole = faces.shape[1:]
    small = (cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA) for face in faces)
    return np.stack(
        [np.asarray(cv2.resize(f, whole, interpolation=cv2.INTER_LINEAR), np.uint8) for f in small]
    )


def _noisy(faces: Faces, gain: float, sigma: float) -> Faces:
    noise = np.random.default_rng(0).normal(0, sigma, faces.shape)
    return np.clip(np.rint(faces * gain + noise), 0, 255).astype(np.uint8)


def perturbations() -> dict[str, list[Callable[[Faces], Faces]]]:
    """What a camera does to a face; where several directions exist, all are scored.

    Edges are repeated where a shift or a turn shows what the crop does not hold.
    """
    return {
        "as it is": [lambda f: f],
        "blur, sigma 1 pixel": [lambda f: _blurred(f, 1.0)],
        "blur, sigma 2 pixels": [lambda f: _blurred(f, 2.0)],
        "24 pixels, enlarged": [lambda f: _enlarged(f, 24)],
        "16 pixels, enlarged": [lambda f: _enlarged(f, 16)],
        "bright light, half as much again": [lambda f: _noisy(f, 1.5, 0)],
        "low light, a third, with noise": [lambda f: _noisy(f, 1 / 3, 4)],
        "noise, sigma 15 of 255": [lambda f: _noisy(f, 1, 15)],
        "rotation of 20 degrees": [
            lambda f: _moved(f, angle=-20),
            lambda f: _moved(f, angle=20),
        ],
        "box shifted by 10%": [
            lambda f: _moved(f, x=0.1),
            lambda f: _moved(f, x=-0.1),
            lambda f: _moved(f, y=0.1),
            lambda f: _moved(f, y=-0.1),
        ],
        "box 10% too small": [lambda f: _moved(f, scale=1 / 0.9)],
        "box 10% too large": [lambda f: _moved(f, scale=1 / 1.1)],
    }


def robustness(
    classifier: Classifier, split: Split, convention: str = "fer2013"
) -> dict[str, float]:
    """Accuracy on ``split`` under each perturbation, mean over its directions."""
    rows, truth = targets.judged(split, convention, len(classifier.labels))
    faces = split.images[rows]
    return {
        name: float(
            np.mean(
                [np.mean(classifier.predict(way(faces)).argmax(axis=1) == truth) for way in ways]
            )
        )
        for name, ways in perturbations().items()
    }


# --- the whole report -------------------------------------------------------------------------


def evaluate(
    model: Path,
    data: Dataset,
    split_name: str,
    out: Path,
    *,
    scale: float = 1.0,
    offset: float = 0.0,
    convention: str = "",
    labels: Sequence[str] | None = None,
    overwrite: bool = False,
    with_robustness: bool = True,
) -> dict[str, Any]:
    """Score ``model`` on a split and write JSON, Markdown and plots into ``out``.

    ``scale`` and ``offset`` are those of ``load_classifier``. ``convention`` is what counts as
    correct; by default what the model's manifest states, and ``fer2013`` where it has none.
    ``labels`` name the outputs of a Keras file, which are matched with the data's
    (``Dataset.for_labels``). Raises UsageError when they contradict a ``.tflite`` file's own.
    """
    refuse_existing(out / "evaluation.json", overwrite)
    classifier = load_classifier(model, tuple(labels or data.labels), scale=scale, offset=offset)
    if labels and tuple(labels) != classifier.labels:
        raise UsageError(
            f"--labels {','.join(labels)}: {model} itself states {','.join(classifier.labels)}; "
            "omit --labels"
        )
    data, absent = data.for_labels(classifier.labels)
    split, labels = data.split(split_name), classifier.labels
    convention = convention or classifier.convention or "fer2013"
    targets.require_convention(convention, labels)
    probabilities = classifier.predict(split.images)
    flipped = classifier.predict(np.ascontiguousarray(split.images[:, :, ::-1]))
    figures = {
        "model": model.name,
        "data": data.source,
        "data_sha256": data.sha256,
        "dropped": dict(data.dropped),
        "without_labels": list(absent),
        **score(probabilities, split, labels, flipped=flipped, convention=convention),
    }
    if with_robustness and "PublicTest" in data.splits:
        figures["robustness"] = robustness(classifier, data.split("PublicTest"), convention)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "evaluation.json", figures)
    write_text(out / "evaluation.md", markdown(figures))
    title = f"{model.name}, {split_name}"
    plots.confusion(np.array(figures["confusion"]), labels, out / "confusion", title)
    rows, truth = targets.judged(split, convention, len(labels))
    confidence, accuracy, _ = metrics.equal_mass_bins(probabilities[rows], truth)
    plots.reliability(
        confidence,
        accuracy,
        figures["calibration_error"],
        figures["calibration_noise"],
        out / "reliability",
        title,
    )
    judged = dataclasses.replace(split.select(rows), labels=truth)
    mistakes(probabilities[rows], judged, labels, out / "mistakes", title)
    return figures


def mistakes(
    probabilities: Floats,
    split: Split,
    labels: tuple[str, ...],
    stem: Path,
    title: str,
    count: int = 40,
) -> None:
    """Contact sheet of the most confident mistakes: predicted, confidence, (label in the data)."""
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != split.labels)
    worst = wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")][:count]
    captions = [
        f"{labels[predicted[i]]} {100 * probabilities[i].max():.0f}%\n({labels[split.labels[i]]})"
        for i in worst
    ]
    if len(worst):
        plots.contact_sheet(
            split.images[worst], captions, stem, f"{title}: most confident mistakes (label)"
        )


def percent(value: float | None) -> str:
    """One decimal, or a dash."""
    return "–" if value is None else f"{100 * value:.1f}%"


def markdown(figures: dict[str, Any]) -> str:
    """The evaluation as a Markdown page."""
    low, high = figures["accuracy_interval"]
    people = figures.get("convention") == "people"
    judge = "FER+ majority" if people else "original labels"
    rows = [
        [f"accuracy, {judge}", percent(figures["accuracy"]), str(figures["images"])],
        [
            "without twins",
            percent(figures["without_twins"]),
            str(figures["without_twins_images"]),
        ],
        ["twins alone", percent(figures["twins"]), str(figures["twins_images"])],
    ]
    if "flip_averaged" in figures:
        rows.append(["flip-averaged", percent(figures["flip_averaged"]), str(figures["images"])])
    if "original_labels" in figures:
        other = figures["original_labels"]
        rows.append(["original labels", percent(other["accuracy"]), str(other["images"])])
        rows.append(["original labels, without twins", percent(other["without_twins"]), ""])
    plus = figures.get("ferplus")
    if plus:
        score_7 = [percent(plus["accuracy"]), str(plus["images"])]
        rows.append(["FER+ majority, seven classes", *score_7])
        eight = plus["eight_classes"]
        name = f"FER+'s own protocol, {eight['outputs']} outputs for eight classes"
        rows.append([name, percent(eight["accuracy"]), str(eight["images"])])
    rows += [
        ["macro-F1", percent(figures["macro_f1"]), ""],
        ["mean recall", percent(figures["balanced_accuracy"]), ""],
        *(
            [["mean recall without disgust", percent(figures["recall_six"]), ""]]
            if "recall_six" in figures
            else []
        ),
        [
            "expected calibration error",
            f"{percent(figures['calibration_error'])} "
            f"(noise floor {percent(figures['calibration_noise'])})",
            "",
        ],
    ]
    text = [
        f"# {figures['model']} on {figures['split']}\n",
        f"Single crop, no test-time augmentation unless named. 95% interval of the accuracy: "
        f"{percent(low)} to {percent(high)}. Data: {figures['data']}.\n",
    ]
    for why, count in figures["dropped"].items():
        text.append(f"Dropped by the clean protocol: {count} {why}.\n")
    if figures.get("without_labels"):
        text.append(
            "Without the images of labels that the model does not have: "
            f"{', '.join(figures['without_labels'])}.\n"
        )
    text.append(table(["figure", "value", "images"], rows))
    if plus:
        dropped = ", ".join(f"{n} {why}" for why, n in plus["dropped"].items())
        text.append(
            f"FER+ rows dropped: {dropped}. The original label itself agrees with the majority on "
            f"{percent(plus['original_label'])} of the rows kept.\n"
        )
    labels = list(figures["recall"])
    matrix = figures["confusion"]
    text.append("## Classes\n")
    text.append(
        table(
            ["class", "images", "recall", "precision"],
            [
                [
                    name,
                    str(sum(matrix[i])),
                    percent(figures["recall"][name]),
                    percent(figures["precision"][name]),
                ]
                for i, name in enumerate(labels)
            ],
        )
    )
    text.append("## Confusion (rows: true)\n")
    text.append(
        table(
            ["", *labels],
            [[name, *map(str, matrix[i])] for i, name in enumerate(labels)],
        )
    )
    if "robustness" in figures:
        text.append(f"## Robustness (PublicTest, {judge})\n")
        text.append(
            table(
                ["what happens to the face", "accuracy"],
                [[name, percent(value)] for name, value in figures["robustness"].items()],
            )
        )
    return "\n".join(text)
