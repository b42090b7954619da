"""Pictures from strangers: bytes in, an upright BGR picture out, or one line that says why not.

Nothing is decoded before its header has been measured, and only the formats of ``FORMATS`` are
opened at all, so neither a decompression bomb nor an exotic parser is reached.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np

from emotion_edge.errors import ImageError, MissingExtra
from emotion_edge.values import Box, Image

try:
    import PIL.Image
except ImportError as error:
    raise MissingExtra("the web page", "web", "PIL") from error

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
WORKING_SIDE = 1920
"""Pixels: a longer side is reduced to this, which costs no face and saves the device's memory."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one picture may ask of the device.

    megabytes: of the file, 10**6 bytes each. megapixels: of the decoded picture; 50 lets the
        full size of today's phones pass.
    """

    megabytes: float = 20.0
    megapixels: float = 50.0

    @property
    def bytes(self) -> int:
        """The largest file."""
        return int(self.megabytes * 1e6)

    @property
    def pixels(self) -> int:
        """The largest picture."""
        return int(self.megapixels * 1e6)


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A picture ready for the pipeline.

    image: uint8 BGR ``(height, width, 3)``, upright, no side longer than ``WORKING_SIDE``.
    width, height: pixels of the original, upright.
    notes: what was done to it that its owner should know, each a sentence.
    """

    image: Image
    width: int
    height: int
    notes: tuple[str, ...] = ()

    def to_original(self, box: Box) -> Box:
        """A box of ``image`` in the pixels of the original."""
        across, down = self.width / self.image.shape[1], self.height / self.image.shape[0]
        return Box(
            round(box.x * across),
            round(box.y * down),
            round(box.width * across),
            round(box.height * down),
            box.score,
        )


def read_picture(data: bytes, limits: Limits | None = None) -> Picture:
    """Decode a file's bytes.

    Turned upright by EXIF; of an animation the first frame; transparency becomes white; 16 bits
    become 8; CMYK becomes RGB.
    Raises ImageError for too many bytes or pixels, no picture, a broken one, or colours that
    have no agreed meaning (floating point, Lab).
    """
    limits = limits or Limits()
    if len(data) > limits.bytes:
        raise ImageError(
            f"the file has {len(data) / 1e6:.1f} MB, at most {limits.megabytes:g} MB are taken: "
            "send a smaller copy"
        )
    # What Pillow warns of (a bomb below its own limit, odd metadata) is judged here or harmless,
    # and a stranger's file must not write into the log.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _decode(data, limits)


def _decode(data: bytes, limits: Limits) -> Picture:
    with _open(data, limits) as opened:
        width, height = opened.size
        if width * height > limits.pixels:
            raise ImageError(
                f"the picture has {width}x{height} pixels, at most {limits.megapixels:g} "
                "megapixels are taken: send a smaller copy"
            )
        notes = []
        if getattr(opened, "is_animated", False):
            notes.append("It is animated: only its first frame was looked at.")
        try:
            # A JPEG can be decoded at a fraction of its size, in as small a part of the memory.
            opened.draft("RGB", (WORKING_SIDE, WORKING_SIDE))
            opened.load()
            decoded = _eight_bit_rgb(opened)
        except ImageError:
            raise
        except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, ...
            raise ImageError(
                f"the picture breaks off or is damaged ({error}): copy or export it again"
            ) from error
        # Asked after loading: Pillow has turned a TIFF by then, and a PNG may say it at its end.
        orientation = _orientation(opened)
    decoded.thumbnail((WORKING_SIDE, WORKING_SIDE), PIL.Image.Resampling.BOX)
    if orientation in _TURNS:
        decoded = decoded.transpose(_TURNS[orientation])
    if (width > height) != (decoded.width > decoded.height):  # it lay on its side
        width, height = height, width
    image = np.ascontiguousarray(np.asarray(decoded, dtype=np.uint8)[:, :, ::-1])
    return Picture(image, width, height, tuple(notes))


_TURNS = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}
"""What undoes each value of EXIF's Orientation."""


def _open(data: bytes, limits: Limits) -> PIL.Image.Image:
    """Read the header alone."""
    try:
        return PIL.Image.open(io.BytesIO(data), formats=FORMATS)
    except PIL.Image.DecompressionBombError as error:
        raise ImageError(
            f"the picture has more than the {limits.megapixels:g} megapixels that are taken: "
            "send a smaller copy"
        ) from error
    except Exception as error:  # a parser's complaint has any type
        raise ImageError(
            f"this is no picture that can be read ({len(data)} bytes): send a complete "
            "JPEG, PNG, WebP, GIF, BMP or TIFF file"
        ) from error


def _orientation(opened: PIL.Image.Image) -> int:
    """EXIF's Orientation, 1 (upright) where it is absent or damaged."""
    try:
        value = opened.getexif().get(0x0112, 1)
    except Exception:  # the picture is worth more than its metadata
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _eight_bit_rgb(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Any colour mode that a camera or a drawing program writes, as RGB over white."""
    if picture.mode.startswith("I"):  # 16-bit gray; convert() would clip it at 255
        levels = np.asarray(picture).astype(np.float32)
        return PIL.Image.fromarray(np.clip(levels / 257, 0, 255).astype(np.uint8)).convert("RGB")
    if picture.mode in ("F", "LAB", "HSV"):
        raise ImageError(
            f"the picture's colours are of the kind {picture.mode}, which has no agreed look: "
            "export it as JPEG or PNG"
        )
    if picture.has_transparency_data:
        over = picture.convert("RGBA")
        white = PIL.Image.new("RGBA", over.size, "white")
        return PIL.Image.alpha_composite(white, over).convert("RGB")
    return picture.convert("RGB")
