"""What convert/README.md says about formats, tried with files that those versions wrote.

Keras 2 (tf_keras) and an early Keras 3 are installed into folders of the test, next to the pinned
TensorFlow. Where they cannot be fetched, these tests are skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from convert import keras_file
from convert.errors import ConversionError
from tests.convert import legacy_files
from tests.convert.write_formats import COLOUR, X

ROOT = Path(__file__).parents[2]
VERSIONS = {"tf_keras": "tf_keras>=2.21,<2.22", "keras": "keras==3.3.3"}
BUILT = ("small", "branched", "recurrent", "application", "augmented")
FILES = {
    "tf_keras": [
        *(f"{name}{suffix}" for name in BUILT for suffix in (".h5", ".keras")),
        *("small-saved", "branched-saved", "weights.h5"),
    ],
    "keras": [f"{name}.keras" for name in BUILT],
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Where each version of Keras is installed."""
    found = {}
    for module, requirement in VERSIONS.items():
        folder = tmp_path_factory.mktemp(f"installed-{module}")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        words = [*command, "--target", str(folder), requirement]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"{requirement} cannot be installed: {done.stderr.strip()[-200:]}")
        found[module] = folder
    return found


@pytest.fixture(scope="module")
def written(
    installed: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A folder of files for each version."""
    found = {}
    for module, place in installed.items():
        folder = tmp_path_factory.mktemp(f"written-{module}")
        path = os.pathsep.join([str(place), str(ROOT), str(ROOT / "edge")])
        done = subprocess.run(
            [sys.executable, "-m", "tests.convert.write_formats", str(folder), module],
            env={**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        found[module] = folder
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("default")  # tf_keras and SavedModels warn
@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in FILES.items() for name in names]
)
def test_a_file_of_another_keras_answers_as_it_did(
    module: str,
    name: str,
    written: dict[str, Path],
    installed: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if name.endswith("-saved"):
        with pytest.raises(ConversionError, match="pip install --no-deps 'tf_keras"):
            monkeypatch.setattr(keras_file.importlib.util, "find_spec", lambda name: None)
            keras_file.load(written[module] / name)
        monkeypatch.undo()
        monkeypatch.syspath_prepend(str(installed[module]))
    folder = written[module]
    architecture = str(folder / "weights.json") if name == "weights.h5" else None
    network = keras_file.load(folder / name, architecture=architecture).network
    fed = COLOUR if name.startswith("application") else X
    answers = np.asarray(network(fed, training=False))
    np.testing.assert_allclose(answers, np.load(folder / f"{name}.npy"), atol=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_multi_gpu_wrapper_of_a_functional_model(written: dict[str, Path]) -> None:
    folder = written["tf_keras"]
    plain = keras_file.load(folder / "application.h5").network
    legacy_files.write_multi_gpu(folder / "gpus.h5", folder / "application.h5")
    found = keras_file.load(folder / "gpus.h5")
    assert found.notes == ("the multi-GPU wrapper was removed",)
    np.testing.assert_allclose(np.asarray(found.network(COLOUR)), np.asarray(plain(COLOUR)))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("default")
def test_keras_2_does_not_run_the_code_of_a_lambda(
    written: dict[str, Path],
    installed: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(installed["tf_keras"]))
    monkeypatch.chdir(tmp_path)
    path = written["tf_keras"] / "risky.h5"
    with pytest.raises(ConversionError, match="Lambda layer"):
        keras_file.load(path)
    with pytest.raises(ConversionError, match="Lambda"):
        keras_file._through_keras_2(path, {}, allow_lambda=False)
    assert not (tmp_path / "ran").exists()


def rows() -> dict[str, str]:
    """The table of convert/README.md: file and result."""
    text = (ROOT / "convert" / "README.md").read_text()
    lines = text.partition("### Which files load")[2].partition("\n\n`pytest")[0].splitlines()
    cells = [line.strip("| ").split(" | ", 1) for line in lines if line.startswith("| ")]
    return dict(cells[2:])


ROWS = {
    "`.keras` of Keras 3": "test_compatibility: keras",
    "`.keras` of `tf_keras` (TensorFlow 2.12 and later)": "test_compatibility: tf_keras",
    "SavedModel folder of `tf_keras` or of Keras in TensorFlow 2": "test_compatibility: tf_keras",
    "HDF5 of TensorFlow 2, with depthwise and separable layers (`groups`)": "test_compatibility",
    "HDF5 of Keras 2.0 to 2.3, Sequential as a list of layers": "test_keras_file",
    "HDF5 of Keras 1 in TensorFlow's order (`Convolution2D`, `nb_filter`)": "test_keras_file",
    "channels first (`channels_first`), all layers or single ones": "test_keras_file",
    "HDF5 of Keras 2 with Theano's kernels": "test_keras_file",
    "HDF5 of Keras 1 in Theano's order (`dim_ordering`)": "test_keras_file",
    "HDF5 named `.keras`, or the reverse": "test_keras_file",
    "weights only": "test_compatibility: weights.h5, test_keras_file",
    "augmentation layers (`RandomFlip`, ...) of any version": "test_compatibility: augmented",
    "operators in the graph (`TFOpLambda`, as from `preprocess_input`)": "application",
    "a network wrapped by `multi_gpu_model`": "test_compatibility, test_keras_file",
    "custom layers, subclassed models with `get_config`": "test_keras_file",
    "`Lambda`": "test_keras_file",
    "`hard_sigmoid` of Keras 2": "test_compatibility: branched, test_keras_file",
    "LSTM, GRU": "test_compatibility: recurrent, test_recurrent",
    "class folders that are symbolic links": "test_images",
    "Git LFS pointer, HTML page, Python script, PyTorch, ONNX, TFLite, SavedModel without Keras, "
    "truncated file": "test_keras_file",
}
"""Each row of the table and the test that tries it."""


def test_every_row_of_the_table_is_tried() -> None:
    assert list(rows()) == list(ROWS)


def test_the_pinned_keras_is_what_the_converter_uses() -> None:
    assert keras.__version__.split(".")[0] == "3"
