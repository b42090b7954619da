"""``emotion-edge sign``: makes a printable notice for the people in front of the camera."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from emotion_edge.commands.status import SERVICE_CONFIG
from emotion_edge.errors import OutputExists, UsageError
from emotion_edge.files import write_whole
from emotion_edge.kiosk import notice
from emotion_edge.kiosk.configuration import load_config

HELP = "make a printable notice with a QR code: what EU AI Act, Article 50(3), requires"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("--operator", required=True, help="who is responsible, with an address")
    parser.add_argument("--contact", required=True, help="whom people can ask")
    parser.add_argument("--purpose", required=True, help="why the camera is there")
    parser.add_argument("--url", required=True, help="the operator's page, for the QR code")
    parser.add_argument(
        "--language",
        default="en",
        metavar="L,..",
        help=f"one page for each: {', '.join(notice.languages())}",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="the kiosk.toml it describes, by default the service's own",
    )
    parser.add_argument("--font", type=Path, metavar="FILE.ttf", help="font of the PDF")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(),
        metavar="FOLDER",
        help="where to write notice.html, .pdf",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")


def _text(word: str) -> str:
    """A word of the command line as UTF-8, whatever the locale."""
    return os.fsencode(word).decode(errors="replace")


def run(options: argparse.Namespace) -> int:
    """Write both files. Raises UsageError, MissingExtra, OutputExists or SinkError."""
    texts = notice.choose([name for name in options.language.split(",") if name])
    about = notice.Notice(
        operator=_text(options.operator),
        contact=_text(options.contact),
        purpose=_text(options.purpose),
        url=_text(options.url),
    )
    path = options.config or (str(SERVICE_CONFIG) if SERVICE_CONFIG.is_file() else None)
    if path is None:
        raise UsageError(
            f"there is no {SERVICE_CONFIG}: name the configuration that the notice describes with "
            "--config FILE"
        )
    said = notice.statements(load_config(path))
    targets = [options.out / "notice.html", options.out / "notice.pdf"]
    for target in targets:
        if target.exists() and not options.overwrite:
            raise OutputExists(target)
    contents: list[str | bytes] = [
        notice.as_html(about, texts, said),
        notice.as_pdf(about, texts, said, options.font),
    ]
    for target, content in zip(targets, contents, strict=True):
        print(write_whole(target, content))
    return 0
