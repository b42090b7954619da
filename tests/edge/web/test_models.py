from __future__ import annotations

import gc
import weakref
from pathlib import Path

import cv2
import numpy as np
import pytest

from emotion_edge.detectors import FaceDetector
from emotion_edge.errors import DetectorError, ManifestError, ModelError, UsageError
from emotion_edge.model.classifier import TFLiteClassifier
from emotion_edge.model.shipped import model_path
from emotion_edge.values import Box, Emotion, Image
from emotion_edge.web import models as module
from emotion_edge.web.models import Models

from .conftest import TINY, write_tiny


@pytest.fixture
def photo(portrait: bytes) -> Image:
    return np.asarray(cv2.imdecode(np.frombuffer(portrait, np.uint8), 1), dtype=np.uint8)


def test_the_chosen_come_first_then_the_shipped_and_their_variants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    write_tiny(shipped / "fast-int8.tflite", "fast")
    write_tiny(shipped / "fast-other.tflite", "fast other")
    (shipped / "stray.tflite").write_bytes(b"no model")
    monkeypatch.setattr(module, "shipped_models", lambda: {"fast": shipped / "fast-int8.tflite"})
    mine = write_tiny(tmp_path / "mine.tflite", "mine")
    names = [one.name for one in Models([mine], detector="haar").installed]
    assert names == ["mine int8", "fast int8", "fast other int8"]
    assert Models(detector="haar").default == "fast int8"


def test_two_files_of_one_name_keep_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "shipped_models", dict)
    files = [write_tiny(tmp_path / f"{name}.tflite", "same") for name in ("a", "b")]
    assert [one.name for one in Models(files, detector="haar").installed] == [
        "same int8",
        "same int8 (b.tflite)",
    ]


def test_a_chosen_file_that_is_no_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "shipped_models", dict)
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(b"no model")
    with pytest.raises(ModelError, match="is not a TFLite model"):
        Models([bad])
    bare = tmp_path / "bare.tflite"
    bare.write_bytes(module.manifests.split(TINY.read_bytes())[0])
    with pytest.raises(ManifestError, match="has no manifest"):
        Models([bare])
    with pytest.raises(ModelError, match="no model is installed"):
        Models()
    with pytest.raises((UsageError, DetectorError), match="detector"):
        Models([TINY], detector="none")


def test_opinions_of_the_same_faces(models: Models, photo: Image) -> None:
    first, second = models.compare(photo, ["tiny int8", "other int8"], repeats=3)
    (face,) = models.look(photo).faces
    assert first.faces == second.faces == (face,)
    assert (first.model.name, second.model.name) == ("tiny int8", "other int8")
    assert first.milliseconds > 0


def test_without_a_face_there_is_no_opinion(models: Models) -> None:
    (opinion,) = models.compare(np.zeros((99, 99, 3), np.uint8), ["tiny int8"], repeats=3)
    assert opinion.faces == () and opinion.milliseconds == 0


def test_the_whole_image_is_one_face(models: Models) -> None:
    face = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    assert models.look(face).faces == ()
    (whole,) = models.look(face, whole=True).faces
    assert whole.box == Box(0, 0, 48, 48)
    classifier = TFLiteClassifier.load(TINY)
    assert whole.emotion == classifier.classify(face, Box(0, 0, 48, 48))
    (opinion,) = models.compare(face, ["tiny int8"], repeats=1, whole=True)
    assert opinion.faces == (whole,)


def test_a_low_confidence_is_unsure_where_the_model_has_a_threshold() -> None:
    _, manifest = module.manifests.load(TINY)
    low = Emotion(("happy", "sad", "angry"), (0.4, 0.35, 0.25))
    high = Emotion(("happy", "sad", "angry"), (0.6, 0.3, 0.1))
    plain = module.Installed("plain", TINY, manifest, 1)
    judged = module.Installed("judged", TINY, manifest, 1, unsure_below=0.5)
    assert plain.label(low) == "happy"
    assert (judged.label(low), judged.label(high)) == ("unsure", "happy")


def test_a_precision_moves_the_threshold_of_each_model() -> None:
    def threshold(precision: float | None) -> float:
        return Models(["fast"], detector="haar", precision=precision).find("fast").unsure_below

    _, manifest = module.manifests.load(model_path("fast"))
    assert threshold(None) == manifest.unsure_below
    assert threshold(0.9) < threshold(None) < threshold(0.98)
    with pytest.raises(UsageError, match="between 0 and 1"):
        Models(["fast"], detector="haar", precision=1.5)


def test_a_chosen_model_without_a_curve_refuses_a_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "shipped_models", dict)
    mine = write_tiny(tmp_path / "mine.tflite", "mine")
    with pytest.raises(UsageError, match="precision cannot be chosen"):
        Models([mine], detector="haar", precision=0.9)


def test_no_detector_outlives_its_image(
    models: Models, photo: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def open_detector(name: str, **how: bool) -> FaceDetector:
        detector = module_open_detector(name, **how)
        opened.append(weakref.ref(detector))
        return detector

    module_open_detector = module.open_detector
    monkeypatch.setattr(module, "open_detector", open_detector)
    models.look(photo)
    models.compare(photo, ["tiny int8"], repeats=1)
    gc.collect()
    assert [detector() for detector in opened] == [None, None]


def test_streams_are_separate(models: Models) -> None:
    (first,), (second,) = models.stream().pipelines, models.stream().pipelines
    assert first.tracker is not second.tracker
    assert first.classifier is not second.classifier
    assert first.detector is not second.detector


def test_warming_up_opens_the_model_that_the_first_visitor_gets() -> None:
    models = Models(["fast"], detector="haar")
    assert not models._opened
    models.warm_up()
    assert list(models._opened) == [models.default]
