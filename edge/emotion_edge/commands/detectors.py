"""``emotion-edge detectors``: which face detectors are at hand, and fetching YuNet's weights."""

from __future__ import annotations

import argparse
import http.client
import urllib.request
from pathlib import Path

from emotion_edge.detectors import yunet
from emotion_edge.detectors.haar import HaarDetector
from emotion_edge.errors import DetectorError, OutputExists
from emotion_edge.files import write_whole

HELP = "list the face detectors, or fetch YuNet's weights"
_TIMEOUT_S = 30
_LARGEST = 4 << 20  # bytes: the weights have 0.23 MB, so a longer answer is another file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``list`` and ``get``."""
    actions = parser.add_subparsers(title="actions", dest="action", required=True)
    actions.add_parser("list", help="what is installed, and which one auto takes")
    get = actions.add_parser("get", help="fetch a detector's weights and verify them")
    get.add_argument("detector", choices=["yunet"])
    get.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="FILE",
        help=f"take a local copy of {yunet.FILE} instead of the network",
    )
    get.add_argument("--overwrite", action="store_true", help="replace a file that is there")


def run(options: argparse.Namespace) -> int:
    """List or fetch; 0, or an error is raised."""
    if options.action == "list":
        for line in _list():
            print(line)
        return 0
    path = get_yunet(options.source, overwrite=options.overwrite)
    print(f"{path} (SHA-256 verified); --detector auto takes YuNet from now on")
    return 0


def get_yunet(source: Path | None = None, *, overwrite: bool = False) -> Path:
    """Put YuNet's weights where the detector looks for them.

    source: a local copy; None fetches it from OpenCV's zoo.
    Returns the path; the right file that is there already is left as it is.
    Raises DetectorError when the file cannot be had or is another one, OutputExists when another
    file stands in its place.
    """
    path = yunet.weights_path()
    if path.exists() and not overwrite:
        try:
            yunet.verify(path.read_bytes(), path)
        except DetectorError as error:
            raise OutputExists(path) from error
        return path
    data = _fetch() if source is None else _read(source)
    return write_whole(
        path,
        data,
        lambda text: DetectorError(f"{text}; set XDG_DATA_HOME to a folder that can be written"),
    )


def _read(source: Path) -> bytes:
    try:
        data = source.read_bytes()
    except OSError as error:
        raise DetectorError(
            f"cannot read {source}: {error.strerror or error}; give the path of {yunet.FILE}"
        ) from error
    yunet.verify(data, source)
    return data


def _fetch() -> bytes:
    failures = []
    for url in yunet.URLS:
        host = url.split("/")[2]
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
                data: bytes = answer.read(_LARGEST)
            yunet.verify(data, url)
            return data
        except DetectorError:
            failures.append(f"{host}: another file")
        except (OSError, http.client.HTTPException) as error:  # URLError and time-outs too
            failures.append(f"{host}: {getattr(error, 'reason', None) or error}")
    raise DetectorError(
        f"cannot fetch {yunet.FILE} ({'; '.join(failures)}): without a network, copy the file "
        "from another computer and run emotion-edge detectors get yunet --from FILE"
    )


def _list() -> list[str]:
    lines = []
    try:
        HaarDetector()
        lines.append("haar   ready    comes with OpenCV")
    except DetectorError as error:
        lines.append(f"haar   missing  {error}")
    path = yunet.weights_path()
    if path.is_file():
        try:
            yunet.YuNetDetector()
            lines.append(f"yunet  ready    {path}")
        except DetectorError as error:
            lines.append(f"yunet  broken   {error}")
    else:
        lines.append("yunet  absent   emotion-edge detectors get yunet")
    lines.append(f"auto   {'yunet' if path.is_file() else 'haar'}")
    return lines
