"""Decodes images sent by visitors: a file's bytes in, an upright BGR image or one error line out.

The header is read and its size checked before any pixel is decoded, and only the formats of
``FORMATS`` are opened. Decompression bombs and rarely used parsers are therefore never reached.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np

from emotion_edge.errors import ImageError, MissingExtra
from emotion_edge.values import Box, Image

try:
    import PIL.features
    import PIL.Image
except ImportError as error:
    raise MissingExtra("the web page", "web", "PIL") from error

FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]
"""Pillow's names of the formats that are read here; AVIF and HEIF where their decoders exist."""

if PIL.features.check("avif"):
    FORMATS.append("AVIF")
try:
    import pi_heif
except ImportError:
    pass
else:
    pi_heif.register_heif_opener(thumbnails=False)
    FORMATS.append("HEIF")

_NAMES = {"WEBP": "WebP", "HEIF": "HEIC"}
READABLE = ", ".join(_NAMES.get(name, name) for name in FORMATS[:-1]) + (
    f" or {_NAMES.get(FORMATS[-1], FORMATS[-1])}"
)
"""``FORMATS`` for people."""

WORKING_SIDE = 4096
"""Pixels. Larger images are reduced to this: faces of 24 pixels in a 12-megapixel photograph can
still be found, and the memory for an image is bounded."""


class TooManyBytes(ImageError):
    """A file is larger than the limit."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How large an image may be.

    megabytes: of the file, 10**6 bytes each. megapixels: of the decoded image; 50 covers the full
        size of today's phones.
    """

    megabytes: float = 20.0
    megapixels: float = 50.0

    @property
    def bytes(self) -> int:
        """The largest file."""
        return int(self.megabytes * 1e6)

    @property
    def pixels(self) -> int:
        """The largest image."""
        return int(self.megapixels * 1e6)


@dataclass(frozen=True, slots=True, eq=False)
class DecodedImage:
    """An image ready for the pipeline.

    image: uint8 BGR ``(height, width, 3)``, upright, no side longer than ``WORKING_SIDE``.
    width, height: pixels of the original, upright.
    notes: what was done to the image that its owner should know, each a sentence.
    """

    image: Image
    width: int
    height: int
    notes: tuple[str, ...] = ()

    def to_original(self, box: Box) -> Box:
        """A box of ``image`` in the pixels of the original."""
        across, down = self.width / self.image.shape[1], self.height / self.image.shape[0]
        return box.placed((across, down))


def decode_image(data: bytes, limits: Limits | None = None) -> DecodedImage:
    """Decode a file's bytes.

    The image is turned upright by its EXIF orientation. Of an animation the first frame is used.
    Transparency becomes white, 16 bits become 8, CMYK becomes RGB.
    Raises TooManyBytes for too many bytes; ImageError for too many pixels, a file that is not an
    image, a damaged one, or colours without an agreed meaning (floating point, Lab).
    """
    limits = limits or Limits()
    if len(data) > limits.bytes:
        raise TooManyBytes(
            f"the file has {len(data) / 1e6:.1f} MB; the limit is {limits.megabytes:g} MB: "
            "send a smaller copy"
        )
    # Pillow's warnings (images just below its own limit, odd metadata) are checked here or
    # harmless, and a visitor's file must not write into the log.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _decode(data, limits)


def _decode(data: bytes, limits: Limits) -> DecodedImage:
    with _open(data, limits) as opened:
        width, height = opened.size
        if width * height > limits.pixels:
            raise ImageError(
                f"the image has {width}x{height} pixels; the limit is {limits.megapixels:g} "
                "megapixels: send a smaller copy"
            )
        notes = []
        if getattr(opened, "is_animated", False):
            notes.append("The image is animated: only its first frame was used.")
        try:
            # A JPEG can be decoded at a fraction of its size, which needs less memory.
            opened.draft("RGB", (WORKING_SIDE, WORKING_SIDE))
            opened.load()
            decoded = _eight_bit_rgb(opened)
        except ImageError:
            raise
        except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, ...
            raise ImageError(
                f"the image is incomplete or damaged ({error}): copy or export it again"
            ) from error
        # Read after loading: Pillow has turned a TIFF or a HEIC by then, and a PNG may carry its
        # orientation at the end.
        orientation = _orientation(opened)
    decoded.thumbnail((WORKING_SIDE, WORKING_SIDE), PIL.Image.Resampling.BOX)
    if orientation in _TURNS:
        decoded = decoded.transpose(_TURNS[orientation])
    if (width > height) != (decoded.width > decoded.height):  # the original lay on its side
        width, height = height, width
    image = np.ascontiguousarray(np.asarray(decoded, dtype=np.uint8)[:, :, ::-1])
    return DecodedImage(image, width, height, tuple(notes))


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
    """Read the header only."""
    try:
        return PIL.Image.open(io.BytesIO(data), formats=FORMATS)
    except PIL.Image.DecompressionBombError as error:
        raise ImageError(
            f"the image is larger than the limit of {limits.megapixels:g} megapixels: "
            "send a smaller copy"
        ) from error
    except Exception as error:  # a parser may raise anything
        name = _unread_format(data)
        if name:
            raise ImageError(
                f"this is a {name} file, which is not supported here: send a JPEG or PNG copy"
            ) from error
        raise ImageError(
            f"this is not an image that can be read ({len(data):,} bytes): send a complete "
            f"{READABLE} file"
        ) from error


def _unread_format(data: bytes) -> str:
    """The name of a known format that is not read here; empty for anything else."""
    brands = data[8:32] if data[4:8] == b"ftyp" else b""
    if "AVIF" not in FORMATS and brands[:4] in (b"avif", b"avis"):
        return "AVIF"
    heic = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
    if "HEIF" not in FORMATS and brands[:4] in heic:
        return "HEIC"
    if brands and brands[:4] not in (*heic, b"avif", b"avis"):
        return "video"
    start = data[:256].lstrip().lower()
    for name, marks in (
        ("PDF", (b"%pdf",)),
        ("JPEG XL", (b"\xff\x0a", b"\x00\x00\x00\x0cjxl ")),
        ("SVG", (b"<svg", b"<?xml")),
        ("video", (b"\x1a\x45\xdf\xa3",)),
        ("camera RAW", (b"fujifilmccd-raw", b"iiu\x00")),
    ):
        if start.startswith(marks):
            return name
    return ""


def _orientation(opened: PIL.Image.Image) -> int:
    """EXIF's Orientation, 1 (upright) where it is absent or damaged."""
    try:
        value = opened.getexif().get(0x0112, 1)
    except Exception:  # damaged metadata must not cost the image
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _eight_bit_rgb(opened: PIL.Image.Image) -> PIL.Image.Image:
    """Any colour mode that a camera or a drawing program writes, as RGB over white."""
    if opened.mode.startswith("I"):  # 16-bit gray; convert() would clip it at 255
        levels = np.asarray(opened).astype(np.float32)
        return PIL.Image.fromarray(np.clip(levels / 257, 0, 255).astype(np.uint8)).convert("RGB")
    if opened.mode in ("F", "LAB", "HSV"):
        raise ImageError(
            f"the image has colours of type {opened.mode}, which look different in every program: "
            "export it as JPEG or PNG"
        )
    if opened.has_transparency_data:
        over = opened.convert("RGBA")
        white = PIL.Image.new("RGBA", over.size, "white")
        return PIL.Image.alpha_composite(white, over).convert("RGB")
    return opened if opened.mode == "RGB" else opened.convert("RGB")  # no second full copy
