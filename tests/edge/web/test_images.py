from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

PIL_Image = pytest.importorskip("PIL.Image", reason="the [web] extra is not installed")

from emotion_edge.errors import ImageError  # noqa: E402
from emotion_edge.values import Box  # noqa: E402
from emotion_edge.web.images import FORMATS, WORKING_SIDE, Limits, TooManyBytes, decode_image  # noqa: E402

RED, GREEN, BLUE = (200, 30, 30), (30, 200, 30), (30, 30, 200)


def quarters(mode: str = "RGB", size: tuple[int, int] = (64, 48)) -> Any:
    """Top left red, top right green, the lower half blue."""
    width, height = size
    array = np.zeros((height, width, 3), np.uint8)
    array[:, :] = BLUE
    array[: height // 2, : width // 2] = RED
    array[: height // 2, width // 2 :] = GREEN
    return PIL_Image.fromarray(array).convert(mode)


def encode(image: Any, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def corners(image: np.ndarray) -> list[str]:
    """The dominant colour of the four corners, from the top left, clockwise."""
    names = "bgr"
    points = [image[4, 4], image[4, -5], image[-5, -5], image[-5, 4]]
    return [names[int(point.argmax())] for point in points]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_each_format_comes_out_as_bgr(format: str) -> None:
    decoded = decode_image(encode(quarters(), format))
    assert decoded.image.dtype == np.uint8
    assert decoded.image.shape == (48, 64, 3)
    assert (decoded.width, decoded.height) == (64, 48)
    assert corners(decoded.image) == ["r", "g", "b", "b"]
    assert decoded.notes == ()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_undone(format: str, orientation: int) -> None:
    # The image as a camera held askew stores it: Pillow's own transpose gives the inverse.
    stored = quarters()
    undo = {
        2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE",
        6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270",
    }  # fmt: skip
    if orientation in undo:
        stored = stored.transpose(PIL_Image.Transpose[undo[orientation]])
    exif = PIL_Image.Exif()
    exif[0x0112] = orientation
    decoded = decode_image(encode(stored, format, exif=exif.tobytes()))
    assert decoded.image.shape == (48, 64, 3)
    assert (decoded.width, decoded.height) == (64, 48)
    assert corners(decoded.image) == ["r", "g", "b", "b"]


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b""])
def test_damaged_exif_does_not_cost_the_image(exif: bytes) -> None:
    decoded = decode_image(encode(quarters(), "JPEG", exif=exif))
    assert corners(decoded.image) == ["r", "g", "b", "b"]


def test_sixteen_bit_gray_keeps_its_range() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(8, axis=0)
    for extension in (".png", ".tiff"):
        data = cv2.imencode(extension, ramp)[1].tobytes()
        image = decode_image(data).image
        assert np.abs(image[0, :, 0].astype(int) - np.arange(256)).max() <= 1


def test_sixteen_bit_colour() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None, :, None].repeat(3, axis=2)
    image = decode_image(cv2.imencode(".png", ramp)[1].tobytes()).image
    assert np.abs(image[0, :, 1].astype(int) - np.arange(256)).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_becomes_white(mode: str) -> None:
    clear = PIL_Image.new("RGBA", (8, 8), (10, 10, 10, 0)).convert(mode)
    assert (decode_image(encode(clear)).image == 255).all()
    solid = PIL_Image.new("RGBA", (8, 8), (10, 10, 10, 255)).convert(mode)
    assert (decode_image(encode(solid)).image == 10).all()


def test_a_palette_with_a_transparent_entry_becomes_white() -> None:
    image = PIL_Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 9, 9, 9])
    assert (decode_image(encode(image, transparency=1)).image == 255).all()
    assert (decode_image(encode(image)).image == 9).all()


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk(format: str) -> None:
    assert corners(decode_image(encode(quarters("CMYK"), format)).image) == ["r", "g", "b", "b"]


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_few_colours(mode: str) -> None:
    assert decode_image(encode(quarters(mode))).image.shape == (48, 64, 3)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame(format: str) -> None:
    first, second = PIL_Image.new("RGB", (8, 8), RED), PIL_Image.new("RGB", (8, 8), BLUE)
    data = encode(first, format, save_all=True, append_images=[second], lossless=True)
    decoded = decode_image(data)
    assert corners(decoded.image) == ["r"] * 4
    assert "first frame" in decoded.notes[0]


@pytest.mark.parametrize("mode", ["F", "LAB"])
def test_colours_without_an_agreed_meaning_are_refused(mode: str) -> None:
    with pytest.raises(ImageError, match="export it as JPEG"):
        decode_image(encode(PIL_Image.new(mode, (8, 8)), "TIFF"))


@pytest.mark.parametrize(
    "data",
    [b"", b"GIF89a", b"hello", b"%PDF-1.7\n", b"<svg xmlns='http://www.w3.org/2000/svg'/>",
     b"\xff\xd8\xff\xe0", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"],
)  # fmt: skip
def test_what_is_not_an_image(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"not an image|not supported here"):
        decode_image(data)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_truncated(format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    data = encode(PIL_Image.fromarray(noise), format)
    with pytest.raises(ImageError, match=r"incomplete|not an image"):
        decode_image(data[: len(data) // 2])


@pytest.mark.skipif("AVIF" not in FORMATS, reason="this Pillow was built without AVIF")
def test_avif() -> None:
    decoded = decode_image(encode(quarters(), "AVIF", quality=95))
    assert corners(decoded.image) == ["r", "g", "b", "b"]


@pytest.mark.skipif("HEIF" not in FORMATS, reason="pi-heif is not installed")
def test_heic_is_read_and_turned_upright() -> None:
    # 64 x 48 pixels of `quarters`, stored on its side as a phone stores it; written by pillow-heif.
    decoded = decode_image((Path(__file__).parent / "quarters.heic").read_bytes())
    assert (decoded.width, decoded.height) == (64, 48)
    assert corners(decoded.image) == ["r", "g", "b", "b"]


@pytest.mark.parametrize(
    ("data", "name"),
    [(b"%PDF-1.7\n", "PDF"), (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
     (b"\0\0\0\x18ftypisom", "video"), (b"\0\0\0\x18ftypheic" + bytes(16), "HEIC"),
     (b"\0\0\0\x18ftypavif" + bytes(16), "AVIF")],
)  # fmt: skip
def test_a_known_format_that_is_not_read_is_refused_by_name(
    data: bytes, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emotion_edge.web.images.FORMATS", ["JPEG", "PNG"])
    with pytest.raises(ImageError, match=f"this is a {name} file, which is not supported here"):
        decode_image(data)


def test_bytes_and_pixels_are_limited() -> None:
    data = encode(quarters(size=(200, 100)), "BMP")
    with pytest.raises(TooManyBytes, match=r"0\.1 MB; the limit is 0\.05 MB"):
        decode_image(data, Limits(megabytes=0.05))
    with pytest.raises(ImageError, match=r"200x100 pixels; the limit is 0\.01 megapixels"):
        decode_image(data, Limits(megapixels=0.01))
    decode_image(data, Limits(megabytes=0.07, megapixels=0.02))


def bomb(width: int, height: int) -> bytes:
    """A small PNG file that decodes to as many pixels as it says."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )  # fmt: skip

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((width + 7) // 8 + 1) * 64, 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(8_000, 8_000), (12_000, 10_000), (60_000, 60_000)])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # 64 megapixels pass Pillow, 120 make it warn, 3600 make it raise: all end alike here.
    def decoded(*arguments: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decoded)
    with pytest.raises(ImageError, match="megapixels"):
        decode_image(bomb(*size))


def test_a_large_photograph_is_reduced_and_its_boxes_are_not() -> None:
    decoded = decode_image(encode(quarters(size=(6000, 4500)), "JPEG"))
    height, width = decoded.image.shape[:2]
    assert max(height, width) <= WORKING_SIDE
    assert (decoded.width, decoded.height) == (6000, 4500)
    box = decoded.to_original(Box(width // 2, height // 2, width // 4, height // 4, 0.5))
    assert box == Box(3000, 2250, 1500, 1125, 0.5)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_file_gives_an_image_or_an_image_error(data: st.DataObject) -> None:
    format = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]))
    content = bytearray(encode(quarters(size=(32, 24)), format))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(1, len(content))) :]
    try:
        image = decode_image(bytes(content), Limits(megapixels=1)).image
    except ImageError as error:
        assert "\n" not in str(error)
    else:
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
