"""``emotion-edge detectors``: lists the face detectors, downloads YuNet's weights."""

from __future__ import annotations

import argparse
import http.client
import urllib.request
from pathlib import Path

from emotion_edge.detectors import yunet
from emotion_edge.detectors.haar import HaarDetector
from emotion_edge.errors import DetectorError, OutputExists
from emotion_edge.files import write_whole

HELP = "list the face detectors, or download YuNet's weights"
_TIMEOUT_S = 30
_LARGEST = 4 << 20  # bytes: the weights have 0.23 MB, so a longer response is another file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``list``, the default, and ``get``."""
    actions = parser.add_subparsers(title="actions", dest="action", metavar="list | get")
    actions.add_parser("list", help="list what is installed, and which one auto uses (the default)")
    get = actions.add_parser("get", help="download a detector's weights and verify them")
    get.add_argument("detector", choices=["yunet"])
    get.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="FILE",
        help=f"use a local copy of {yunet.FILE} instead of the network",
    )
    get.add_argument("--overwrite", action="store_true", help="replace an existing file")


def run(options: argparse.Namespace) -> int:
    """List or download. Raises DetectorError or OutputExists."""
    if options.action != "get":
        for line in _list():
            print(line)
        return 0
    present = yunet.weights_path().exists()
    path = get_yunet(options.source, overwrite=options.overwrite)
    how = "was already installed" if present and not options.overwrite else "installed"
    print(f"{path} {how} (SHA-256 verified); --detector auto uses YuNet")
    return 0


def get_yunet(source: Path | None = None, *, overwrite: bool = False) -> Path:
    """Put YuNet's weights where the detector looks for them.

    source: a local copy, which is verified in any case; None downloads it from OpenCV's zoo.
    Returns the path; if the right file exists there, it is kept.
    Raises DetectorError when the file cannot be read, downloaded or verified, OutputExists when
    another file has its name.
    """
    path = yunet.weights_path()
    local = None if source is None else _read(source)
    if path.exists() and not overwrite:
        try:
            yunet.verify(path.read_bytes(), path)
        except DetectorError as error:
            raise OutputExists(path) from error
        return path
    data = _fetch() if local is None else local
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
            failures.append(f"{host}: a different file")
        except (OSError, http.client.HTTPException) as error:  # URLError and timeouts too
            failures.append(f"{host}: {getattr(error, 'reason', None) or error}")
    raise DetectorError(
        f"cannot download {yunet.FILE} ({'; '.join(failures)}): without a network, copy the file "
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
