"""From a frame and a box to the picture the network sees: once, for device and workstation.

The converter's gate, the evaluation and the live pipeline all call ``crop_face`` and ``fit``,
so an accuracy measured on a workstation is the accuracy of the device's own code.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from emotion_edge.errors import ImageError
from emotion_edge.values import Box, Image


def crop_face(image: Image, box: Box, margin: float = 0.0) -> Image:
    """Cut a square around a face.

    The square is centred on the box, its side the longer of the box's sides times
    ``1 + 2 * margin``. Where it reaches over the frame's edge the last pixels are repeated, so
    that a face at the edge keeps its proportions.

    image: uint8 ``(height, width)`` or ``(height, width, 3)``.
    margin: share of the box's side added on each side; negative cuts into the box.
    Returns a view where the square lies inside the frame, else a copy.
    Raises ImageError when the square does not touch the frame.
    """
    side = max(1, round(max(box.width, box.height) * (1 + 2 * margin)))
    left = box.x + (box.width - side) // 2
    top = box.y + (box.height - side) // 2
    height, width = image.shape[:2]
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
    if x0 >= x1 or y0 >= y1:
        raise ImageError(f"the box {box} lies outside the {width}x{height} frame: drop it")
    crop = image[y0:y1, x0:x1]
    over = (y0 - top, top + side - y1, x0 - left, left + side - x1)
    if any(over):
        crop = np.asarray(cv2.copyMakeBorder(crop, *over, cv2.BORDER_REPLICATE), dtype=np.uint8)
    return crop


def fit(crop: Image, height: int, width: int, channels: int, *, rgb: bool = True) -> Image:
    """Bring a crop to the network's input size and colours.

    crop: uint8 gray ``(h, w)`` or BGR ``(h, w, 3)``.
    channels: 1 for gray (ITU-R BT.601 luma), 3 for colour.
    rgb: with three channels, whether the network wants RGB rather than BGR.
    Returns uint8 ``(height, width)`` or ``(height, width, 3)``; the crop itself, uncopied, where
    it fits already. Shrinking averages (``INTER_AREA``), so that no detail aliases; enlarging is
    bilinear.
    Raises ImageError when the crop is empty or has another number of channels.
    """
    if crop.ndim not in (2, 3) or crop.size == 0 or (crop.ndim == 3 and crop.shape[2] != 3):
        raise ImageError(
            f"a face crop has shape {crop.shape}; expected gray (h, w) or BGR (h, w, 3)"
        )
    if crop.shape[:2] != (height, width):
        shrinks = crop.shape[0] >= height and crop.shape[1] >= width
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        crop = np.asarray(cv2.resize(crop, (width, height), interpolation=how), dtype=np.uint8)
    if channels == 1:
        return crop if crop.ndim == 2 else _convert(crop, cv2.COLOR_BGR2GRAY)
    if crop.ndim == 2:
        return _convert(crop, cv2.COLOR_GRAY2BGR)
    return _convert(crop, cv2.COLOR_BGR2RGB) if rgb else crop


def read_image(path: str | Path) -> Image:
    """Read a photograph as BGR, turned upright by its EXIF orientation.

    Returns uint8 ``(height, width, 3)``.
    Raises ImageError when the file is absent, or no picture that OpenCV can decode.
    """
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror or error}") from error
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise ImageError(
            f"{path} is no picture OpenCV can decode ({data.size} bytes): "
            "give a complete JPEG, PNG, WebP, BMP or TIFF file"
        )
    return np.asarray(image, dtype=np.uint8)


def _convert(image: Image, code: int) -> Image:
    return np.asarray(cv2.cvtColor(image, code), dtype=np.uint8)
