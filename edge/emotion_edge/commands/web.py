"""Serves the web page."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from emotion_edge.commands.flags import add_backend_arguments, backend, finite
from emotion_edge.detectors import names
from emotion_edge.errors import UsageError

HELP = "serve a web page for images and for the visitor's camera"

PASSWORD = "EMOTION_EDGE_PASSWORD"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: this machine only; 0.0.0.0 for the network)",
    )
    parser.add_argument("--port", type=int, default=7860, help="(default 7860)")
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        help="a shipped model's name or a .tflite file; repeatable, the first is the default",
    )
    parser.add_argument("--detector", default="auto", help=names())
    parser.add_argument(
        "--precision",
        type=finite,
        metavar="P",
        help="share of the labels shown that should be right; other faces are unsure "
        "(default: the model's own, usually 0.95)",
    )
    add_backend_arguments(parser)
    parser.add_argument(
        "--password-file",
        type=Path,
        metavar="FILE",
        help=f"require the password in this file (or in the variable {PASSWORD})",
    )
    parser.add_argument(
        "--certificate", type=Path, metavar="PEM", help="serve https with this certificate"
    )
    parser.add_argument("--key", type=Path, metavar="PEM", help="the certificate's private key")
    parser.add_argument(
        "--max-megabytes", type=finite, default=20.0, help="largest image file (default 20)"
    )
    parser.add_argument(
        "--max-megapixels", type=finite, default=50.0, help="largest image (default 50)"
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="serve the page under this host name too; repeatable. IP addresses, localhost and "
        "this machine's name are always allowed",
    )
    parser.add_argument(
        "--visitors", type=int, default=4, help="live cameras at a time (default 4)"
    )


def run(options: argparse.Namespace) -> int:
    """Serve until interrupted."""
    password = _password(options)
    network = backend(options)
    for name in ("certificate", "key"):
        path = getattr(options, name)
        if path is not None and not path.is_file():
            raise UsageError(f"--{name}: no file {path}")
    if (options.certificate is None) != (options.key is None):
        raise UsageError("https needs both --certificate and --key")
    for name in ("max_megabytes", "max_megapixels", "visitors"):
        if getattr(options, name) <= 0:
            raise UsageError(
                f"--{name.replace('_', '-')} {getattr(options, name)}: give a number above 0"
            )
    if not 0 <= options.port <= 65535:
        raise UsageError(f"--port {options.port}: give a number from 0 to 65535")

    # Importing Gradio takes seconds, on a Pi many: check the flags first.
    print("emotion-edge: preparing the page", file=sys.stderr, flush=True)
    from emotion_edge.web.environment import private_cache

    with private_cache():
        from emotion_edge.web.images import Limits
        from emotion_edge.web.models import Models
        from emotion_edge.web.server import Settings, serve

        settings = Settings(
            host=options.host,
            port=options.port,
            limits=Limits(options.max_megabytes, options.max_megapixels),
            visitors=options.visitors,
            password=password,
            certificate=options.certificate,
            key=options.key,
            names=tuple(options.allow_host),
        )
        models = Models(
            options.model,
            detector=options.detector,
            backend=network,
            precision=options.precision,
        )
        models.warm_up()
        if warning := exposure(options.host, password, encrypted=options.certificate is not None):
            print(f"emotion-edge: {warning}", file=sys.stderr)
        serve(models, settings)
    return 0


def exposure(host: str, password: str | None, *, encrypted: bool) -> str:
    """What others on the network can do, for the operator to know; empty if they cannot connect."""
    if host in ("127.0.0.1", "localhost", "::1"):
        return ""
    if password is None:
        return "anyone on the network can use this page: --password-file requires a password"
    if not encrypted:
        return (
            "the password and all images cross the network unencrypted: "
            "use --certificate and --key, or keep --host 127.0.0.1 and connect through ssh -L"
        )
    return ""


def _password(options: argparse.Namespace) -> str | None:
    """From the file, else from the environment. In a flag, every user could read it with ps."""
    if options.password_file is None:
        return os.environ.get(PASSWORD) or None
    try:
        password = options.password_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"--password-file: cannot read {options.password_file}: {error}"
        ) from error
    if not password:
        raise UsageError(f"--password-file: {options.password_file} is empty")
    return str(password)
