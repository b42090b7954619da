"""Draws demo.gif, the moving image of the README: the demo camera's frames with their labels.

    python edge/images/make_demo.py

It needs Pillow, which the extra [dev] has. The same versions draw the same file.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import cv2
from PIL import Image

from emotion_edge import load
from emotion_edge.annotate import annotate
from emotion_edge.cameras.gallery import SECONDS, GalleryCamera
from emotion_edge.files import size_text, write_whole

MOST_BYTES = 3_000_000
_CAMERA_FPS = 15
_EVERY = 2  # frames of the camera for one of the file
_COLOURS = 128


def main() -> None:
    """Run the pipeline over the whole show and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=480, help="pixels across")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("demo.gif"))
    options = parser.parse_args()
    data = draw(options.width)
    if len(data) > MOST_BYTES:
        raise SystemExit(f"{size_text(len(data))} is too much for a README: use a smaller --width")
    write_whole(options.out, data)
    print(f"{options.out}, {size_text(len(data))}")


def draw(width: int, seconds: float = SECONDS) -> bytes:
    """The GIF, so many pixels across."""
    pipeline = load("fast", detector="haar", track=True, unsure_below=0)
    camera = GalleryCamera(
        width=640, height=440, noise=0, steady=True, fps=_CAMERA_FPS, paced=False,
        frames=round(seconds * _CAMERA_FPS),
    )  # fmt: skip
    images = []
    with camera:
        for seen in pipeline.stream(camera):
            if seen.frame.index % _EVERY == 0:
                drawn = annotate(seen.frame.image, seen.faces)
                size = (width, round(width * drawn.shape[0] / drawn.shape[1]))
                small = cv2.resize(drawn, size, interpolation=cv2.INTER_AREA)
                images.append(Image.fromarray(cv2.cvtColor(small, cv2.COLOR_BGR2RGB)))
    # One palette for all, of frames that together show every colour; no dither, which would
    # differ from frame to frame and double the size.
    sample = images[:: max(1, len(images) // 6)]
    strip = Image.new("RGB", (images[0].width, images[0].height * len(sample)))
    for place, image in enumerate(sample):
        strip.paste(image, (0, place * image.height))
    palette = strip.quantize(_COLOURS, method=Image.Quantize.MEDIANCUT)
    frames = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    file = io.BytesIO()
    duration = round(1000 * _EVERY / _CAMERA_FPS)
    frames[0].save(
        file, "GIF", save_all=True, append_images=frames[1:], duration=duration, loop=0,
        optimize=False, disposal=1,
    )  # fmt: skip
    return file.getvalue()


if __name__ == "__main__":
    main()
