"""Turns a face in an image into the network's input, on the device and on the workstation.

``face_input`` is the whole step: crop, level a tilted face, resize, convert the colours. The live
pipeline and the benchmarks use it, the converter's gate and the evaluation ``resize_to_input``.
Both sample with the same function, so an accuracy measured on a workstation is the accuracy of the
device's own code.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from emotion_edge.errors import ImageError
from emotion_edge.head import tilt
from emotion_edge.model.manifest import InputSpec
from emotion_edge.values import Box, Image

LEVEL_FROM_DEG = 5.0
"""Smallest tilt that is levelled: below it the network's own tolerance is worth more than the
sharpness that a warp costs."""


def face_input(image: Image, box: Box, spec: InputSpec) -> Image:
    """The network's input for the face at ``box``: cropped, resized, in the network's colours.

    A face that leans by ``LEVEL_FROM_DEG`` or more is levelled, if its landmarks are known and
    ``spec.alignment`` is ``eyes``: the square is turned about its centre. Beyond the image the edge
    pixels are repeated.

    image: uint8 gray ``(height, width)`` or BGR ``(height, width, 3)``.
    Returns uint8 ``(spec.height, spec.width)``, or ``(spec.height, spec.width, 3)`` for a colour
    network; it may share memory with ``image``.
    Raises ImageError when the square does not overlap the image.
    """
    angle = tilt(box.landmarks) if box.landmarks and spec.alignment == "eyes" else 0.0
    if abs(angle) < LEVEL_FROM_DEG:
        angle = 0.0
    left, top, side = _square(box, spec.margin)
    if not angle and (side, side) == (spec.height, spec.width):
        return resize_to_input(crop_face(image, box, spec.margin), spec)
    image = as_image(image)
    height, width = image.shape[:2]
    x, y = left + side / 2, top + side / 2
    lean = math.radians(angle)
    reach = side / 2 * (abs(math.cos(lean)) + abs(math.sin(lean))) + 1
    x0, y0 = max(0, math.floor(x - reach)), max(0, math.floor(y - reach))
    x1, y1 = min(width, math.ceil(x + reach)), min(height, math.ceil(y + reach))
    if x0 >= x1 or y0 >= y1:
        raise _outside(box, image)
    return _sample(image[y0:y1, x0:x1], (x - x0, y - y0), (side, side), lean, spec)


def crop_face(image: Image, box: Box, margin: float = 0.0) -> Image:
    """Cut a square around a face.

    The square is centred on the box. Its side is the longer side of the box times
    ``1 + 2 * margin``. Where the square extends beyond the image, the edge pixels are repeated,
    so that a face at the edge keeps its proportions.

    image: uint8 ``(height, width)`` or ``(height, width, 3)``.
    margin: share of the box's side added on each side; a negative one cuts into the box.
    Returns a view if the square lies inside the image, otherwise a copy.
    Raises ImageError when the square does not overlap the image.
    """
    image = as_image(image)
    left, top, side = _square(box, margin)
    height, width = image.shape[:2]
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
    if x0 >= x1 or y0 >= y1:
        raise _outside(box, image)
    crop = image[y0:y1, x0:x1]
    over = (y0 - top, top + side - y1, x0 - left, left + side - x1)
    if any(over):
        crop = np.asarray(cv2.copyMakeBorder(crop, *over, cv2.BORDER_REPLICATE), dtype=np.uint8)
    return crop


def resize_to_input(crop: Image, spec: InputSpec) -> Image:
    """Convert a crop to the network's input size and colours.

    crop: uint8 gray ``(h, w)`` or BGR ``(h, w, 3)``.
    Returns uint8 ``(spec.height, spec.width)``, or ``(spec.height, spec.width, 3)`` for a colour
    network; the crop itself, not a copy, if nothing has to change. Gray is ITU-R BT.601 luma.
    Shrinking averages to avoid aliasing; enlarging is bilinear.
    Raises ImageError when the crop is empty or has another number of channels.
    """
    if crop.ndim not in (2, 3) or crop.size == 0 or (crop.ndim == 3 and crop.shape[2] != 3):
        raise ImageError(
            f"a face crop has shape {crop.shape}; expected gray (h, w) or BGR (h, w, 3)"
        )
    height, width = crop.shape[:2]
    if (height, width) == (spec.height, spec.width):
        return _in_colours_of(spec, crop)
    return _sample(crop, (width / 2, height / 2), (width, height), 0.0, spec)


def _square(box: Box, margin: float) -> tuple[int, int, int]:
    """Left, top and side of the square around a face: see ``crop_face``."""
    side = max(1, round(max(box.width, box.height) * (1 + 2 * margin)))
    return box.x + (box.width - side) // 2, box.y + (box.height - side) // 2, side


def _sample(
    part: Image,
    middle: tuple[float, float],
    size: tuple[float, float],
    lean: float,
    spec: InputSpec,
) -> Image:
    """Resize a rectangle of an image to the network's input, and turn it upright.

    While it is at least twice too large, it is halved by averaging, which avoids aliasing and is
    several times faster than averaging to any other size. One bilinear warp does the rest.

    part: uint8 gray ``(h, w)`` or BGR ``(h, w, 3)``. middle, size: of the rectangle, in pixels of
    ``part``, across and down. lean: radians by which it leans, clockwise as seen.
    Returns uint8 in the network's size and colours.
    """
    if spec.channels == 1 and part.ndim == 3:
        # Before the resize: one channel to resize instead of three, and the same answer whether
        # the camera delivers gray or colour.
        part = _convert(part, cv2.COLOR_BGR2GRAY)
    across, down = size[0] / spec.width, size[1] / spec.height  # pixels per input pixel
    scale_x = scale_y = 1.0  # of what is left of the part
    while (halve_x := across * scale_x >= 2) | (halve_y := down * scale_y >= 2):
        by_x, by_y = 1 + halve_x, 1 + halve_y
        high, wide = max(1, part.shape[0] // by_y), max(1, part.shape[1] // by_x)
        smaller = cv2.resize(
            part[: high * by_y, : wide * by_x], (wide, high), interpolation=cv2.INTER_AREA
        )
        part = np.asarray(smaller, dtype=np.uint8)
        scale_x, scale_y = scale_x / by_x, scale_y / by_y
    cosine, sine = math.cos(lean), math.sin(lean)
    # From a pixel of the input to a pixel of the part; both are counted from their centres.
    xx, xy = across * cosine * scale_x, -down * sine * scale_x
    yx, yy = across * sine * scale_y, down * cosine * scale_y
    x, y = (spec.width - 1) / 2, (spec.height - 1) / 2
    turn = np.array(
        [
            [xx, xy, middle[0] * scale_x - 0.5 - xx * x - xy * y],
            [yx, yy, middle[1] * scale_y - 0.5 - yx * x - yy * y],
        ]
    )
    sampled = cv2.warpAffine(
        part,
        turn,
        (spec.width, spec.height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return _in_colours_of(spec, np.asarray(sampled, dtype=np.uint8))


def _in_colours_of(spec: InputSpec, face: Image) -> Image:
    if spec.channels == 1:
        return face if face.ndim == 2 else _convert(face, cv2.COLOR_BGR2GRAY)
    if face.ndim == 2:
        return _convert(face, cv2.COLOR_GRAY2BGR)
    return _convert(face, cv2.COLOR_BGR2RGB) if spec.colour == "rgb" else face


def _outside(box: Box, image: Image) -> ImageError:
    height, width = image.shape[:2]
    return ImageError(f"{box} lies outside the {width}x{height} image: use boxes that overlap it")


def as_image(source: object) -> Image:
    """The image that a caller of the Python API passed.

    source: a path, a PIL image, or a uint8 array, gray ``(height, width)`` or BGR
        ``(height, width, 3)``, which is returned as it is.
    Raises ImageError for anything else, and when a file cannot be read.
    """
    if isinstance(source, str | Path):
        return read_image(source)
    if isinstance(source, np.ndarray):
        gray_or_bgr = source.ndim == 2 or (source.ndim == 3 and source.shape[2] == 3)
        if source.dtype == np.uint8 and source.size and gray_or_bgr:
            return source
        received = f"an array of shape {source.shape} and type {source.dtype}"
    elif type(source).__module__.partition(".")[0] == "PIL":
        from PIL import ImageOps  # installed: the caller made this image with it

        try:  # PIL reads a file's pixels here, not when it opens the file
            upright: Any = ImageOps.exif_transpose(source)  # type: ignore[arg-type,unused-ignore]
            pixels = np.asarray(upright.convert("RGB"), dtype=np.uint8)
        except (OSError, ValueError) as error:
            raise ImageError(f"PIL cannot read {source!r:.80}: {error}") from error
        return _convert(pixels, cv2.COLOR_RGB2BGR)
    else:
        received = f"{source!r:.60} of type {type(source).__name__}"
    raise ImageError(
        f"{received} is not an image: pass a path, a PIL image, or a uint8 array, gray "
        "(height, width) or BGR (height, width, 3)"
    )


def read_image(path: str | Path) -> Image:
    """Read an image file as BGR, rotated upright by its EXIF orientation.

    Returns uint8 ``(height, width, 3)``.
    Raises ImageError when the file does not exist or OpenCV cannot decode it.
    """
    if not Path(path).is_file() and Path(path).exists():  # reading a pipe might never end
        raise ImageError(f"{path} is not a regular file: copy the image to one")
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except cv2.error as error:  # more pixels than OpenCV's limit, or than there is memory for
        raise ImageError(f"OpenCV cannot decode {path}: {error.err}") from error
    if image is None:
        raise ImageError(
            f"{path} is not an image OpenCV can decode ({data.size:,} bytes): "
            "use a complete JPEG, PNG, WebP, BMP or TIFF file"
        )
    return np.asarray(image, dtype=np.uint8)


def _convert(image: Image, code: int) -> Image:
    return np.asarray(cv2.cvtColor(image, code), dtype=np.uint8)
