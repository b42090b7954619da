"""``emotion-edge detectors``: lists the face detectors, downloads a detector's weights."""

from __future__ import annotations

import argparse
import http.client
import sys
import time
import urllib.request
from pathlib import Path

from emotion_edge.detectors import AUTO, DETECTORS, Weights, chosen_detector
from emotion_edge.errors import DetectorError, EmotionEdgeError, OutputExists, UsageError
from emotion_edge.files import write_whole

HELP = "list the face detectors, or download a detector's weights"
_TIMEOUT_S = 30.0  # per address
_OPTIONAL_S = 5.0  # the same for weights that an installation can do without
_LARGEST = 64 << 20  # bytes: a longer response is another file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``list``, the default, and ``get``."""
    actions = parser.add_subparsers(title="actions", dest="action", metavar="list | get")
    actions.add_parser("list", help="list what is installed, and which one auto uses (the default)")
    get = actions.add_parser("get", help="download a detector's weights and verify them")
    get.add_argument("detector", metavar="NAME", help="as the list shows it")
    get.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="FILE",
        help="use a local copy of the weights instead of the network",
    )
    get.add_argument("--overwrite", action="store_true", help="replace an existing file")
    get.add_argument(
        "--optional",
        action="store_true",
        help="give up after a few seconds, with one line and exit status 0: for installers",
    )


def run(options: argparse.Namespace) -> int:
    """List or download. Raises DetectorError or OutputExists."""
    if options.action != "get":
        for line in _list():
            print(line)
        return 0
    if options.optional:
        print(get_optional_weights(options.detector), file=sys.stderr)
        return 0
    already = weights(options.detector).path().exists() and not options.overwrite
    path = get_weights(options.detector, options.source, overwrite=options.overwrite)
    how = "was already installed" if already else "installed"
    print(f"{path} {how} (SHA-256 verified); --detector auto uses {chosen_detector()}")
    return 0


def get_optional_weights(name: str) -> str:
    """Download weights if that takes a few seconds; the line that says what came of it.

    Raises UsageError for a detector without weights.
    """
    if weights(name).path().exists():
        return f"detector {name}: already installed"
    try:
        path = get_weights(name, timeout_s=_OPTIONAL_S)
    except DetectorError as error:
        return f"detector {name} is not installed, so {chosen_detector()} is used: {error}"
    return f"detector {name}: installed as {path} (SHA-256 verified)"


def weights(name: str) -> Weights:
    """The weights of a detector. Raises UsageError for a detector without."""
    found = DETECTORS.require(name).weights
    if found is None:
        raise UsageError(f"the detector {name} needs no weights: use it by --detector {name}")
    return found


def get_weights(
    name: str,
    source: Path | None = None,
    *,
    overwrite: bool = False,
    timeout_s: float = _TIMEOUT_S,
) -> Path:
    """Put a detector's weights where the detector looks for them.

    source: a local copy, which is verified in any case; None downloads it from its publisher.
    timeout_s: seconds that one address may take.
    Returns the path; if the right file exists there, it is kept.
    Raises UsageError for a detector without weights, DetectorError when the file cannot be read,
    downloaded or verified, OutputExists when another file has its name.
    """
    wanted = weights(name)
    path = wanted.path()
    local = None if source is None else _read(wanted, source)
    if path.exists() and not overwrite:
        try:
            wanted.verify(path.read_bytes(), path)
        except DetectorError as error:
            raise OutputExists(path) from error
        return path
    data = _fetch(name, wanted, timeout_s) if local is None else local
    return write_whole(
        path,
        data,
        lambda text: DetectorError(f"{text}; set XDG_DATA_HOME to a folder that can be written"),
    )


def _read(weights: Weights, source: Path) -> bytes:
    try:
        data = source.read_bytes()
    except OSError as error:
        raise DetectorError(
            f"cannot read {source}: {error.strerror or error}; "
            f"give the path of {weights.path().name}"
        ) from error
    weights.verify(data, source)
    return data


def _fetch(name: str, weights: Weights, timeout_s: float) -> bytes:
    failures = []
    for url in weights.urls:
        host = url.split("/")[2]
        try:
            data = _download(url, timeout_s)
            weights.verify(data, url)
            return data
        except DetectorError:
            failures.append(f"{host}: a different file")
        except (OSError, http.client.HTTPException) as error:  # URLError and timeouts too
            failures.append(f"{host}: {getattr(error, 'reason', None) or error}")
    raise DetectorError(
        f"cannot download {weights.path().name} ({'; '.join(failures)}): without a network, copy "
        f"it from another computer and run emotion-edge detectors get {name} --from FILE"
    )


def _download(url: str, timeout_s: float) -> bytes:
    """The response, if it is complete in time; a server that trickles is a timeout, too."""
    deadline = time.monotonic() + timeout_s
    data = bytearray()
    with urllib.request.urlopen(url, timeout=timeout_s) as answer:
        while len(data) < _LARGEST and (more := answer.read1(1 << 16)):
            data += more
            if time.monotonic() > deadline:
                raise TimeoutError(f"not complete after {timeout_s:g} s")
    return bytes(data)


def _list() -> list[str]:
    others, troubles = DETECTORS.others()
    rows = []
    for name, kind in {**DETECTORS, **others}.items():
        state, text = "ready", kind.help
        if not kind.installed():
            state, text = "absent", f"{kind.help}: emotion-edge detectors get {name}"
        else:
            try:
                kind().open()
            except EmotionEdgeError as error:
                state, text = "broken", str(error)
        rows.append((name, state, text))
    rows.append((AUTO, chosen_detector(), ""))
    width = max(len(name) for name, _, _ in rows)
    return [f"{name:{width}}  {state:7} {text}".rstrip() for name, state, text in rows] + troubles
