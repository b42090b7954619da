"""Recognises what a model file really is, from its first bytes."""

from __future__ import annotations

import zipfile
from pathlib import Path

from convert.errors import ConversionError

HDF5, KERAS, SAVED_MODEL = "hdf5", "keras", "saved model"
"""The kinds that can be read: legacy HDF5, the zip archive of ``.keras``, and Keras 2's folder."""

_HDF5 = b"\x89HDF\r\n\x1a\n"
_TORCH = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The number with which PyTorch before 1.6 starts a checkpoint, as a pickle."""


def recognise(path: Path) -> str:
    """``HDF5``, ``KERAS`` or ``SAVED_MODEL``, whatever the file is called.

    Raises ConversionError for anything else, with what it is and what to do.
    """
    if path.is_dir():
        if (path / "keras_metadata.pb").is_file():
            return SAVED_MODEL
        raise ConversionError(
            f"{path} is a SavedModel folder without Keras' own description of the network: load it "
            "in the program that wrote it and save it as .keras"
            if (path / "saved_model.pb").is_file()
            else f"{path} is a folder: give a .keras, .h5 or .hdf5 file, or a SavedModel of Keras 2"
        )
    try:
        with path.open("rb") as file:
            head = file.read(4096)
        size = path.stat().st_size
    except OSError as error:
        raise ConversionError(f"cannot read the model {path}: {error.strerror or error}") from error
    if head.startswith(_HDF5):
        return HDF5
    if head.startswith(b"PK\x03\x04"):
        return _archive(path)
    raise ConversionError(f"{path} is not a Keras model: {_other(head, size, path)}")


def _archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise ConversionError(
            f"cannot read {path}: it is truncated ({path.stat().st_size:,} bytes); copy it again"
        ) from error
    if "config.json" in names:
        return KERAS
    if any(name.endswith("data.pkl") for name in names):
        raise ConversionError(
            f"{path} is a PyTorch checkpoint, not a Keras model: this converter reads Keras; "
            "look for a Keras version of the model, or rebuild it in Keras and copy the weights"
        )
    inside = [name for name in names if name.endswith((".h5", ".hdf5", ".keras"))]
    if inside:
        raise ConversionError(f"{path} is a zip archive with {inside[0]}: unpack it and give that")
    raise ConversionError(
        f"{path} is a zip archive without a Keras model ({', '.join(names[:5])}): "
        "give a .keras, .h5 or .hdf5 file"
    )


def _other(head: bytes, size: int, path: Path) -> str:
    text = head.lstrip().lower()
    if not head:
        return "it is empty; copy it again"
    if head.startswith(b"version https://git-lfs"):
        return (
            f"it is a Git LFS pointer of {size} bytes, the model itself was not downloaded; "
            "run `git lfs pull` in its repository, or download the file from the website"
        )
    if text.startswith((b"<!doctype html", b"<html")):
        return (
            f"it is an HTML page of {size:,} bytes, probably a download page or an error page; "
            "download the file itself"
        )
    if head.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        torch = b"torch" in head or _TORCH in head
        what = "a PyTorch checkpoint" if torch else "a Python pickle"
        return f"it is {what}; give a .keras, .h5 or .hdf5 file"
    if head[4:8] == b"TFL3":
        return "it is a TFLite model already; see `python -m convert attach --help`"
    if path.suffix == ".onnx" or b"onnx" in head[:64].lower():
        return "it is an ONNX model; give the Keras model that it was exported from"
    if text.startswith(b"{"):
        return (
            "it is a JSON file, perhaps the model's architecture; give the weights file and "
            f"--architecture {path.name}"
        )
    if _is_script(head):
        return "it is a Python script; run it to get a model file"
    if all(byte >= 9 for byte in head[:256]):
        first = head[:40].decode(errors="replace").splitlines()[0]
        return f"it is a text file that starts with {first!r}; give a .keras, .h5 or .hdf5 file"
    return f"unknown contents ({size:,} bytes, first bytes {head[:4].hex()}); copy the file again"


def _is_script(head: bytes) -> bool:
    lines = head.decode(errors="replace").splitlines()
    return any(line.startswith(("import ", "from ", "def ", "#!/")) for line in lines[:60])
