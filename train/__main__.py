"""``python -m train``: look at data, train, evaluate, compare.

Exit status: 0 done; 2 bad input or a run that cannot go on; 130 interrupted.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from emotion_edge.cli import carry_out
from emotion_edge.errors import MissingExtra, UsageError

FAST_EPOCHS = 4
"""Epochs of ``--fast-run``; ``--set`` wins over it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    options = _parser().parse_args(arguments)
    return carry_out("train", lambda: _run(options), debug=options.debug)


def _run(options: argparse.Namespace) -> int:
    try:
        options.command(options)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith(("train", "emotion_edge")):
            raise
        raise MissingExtra(f"train {options.name}", "train", error.name) from error
    except KeyboardInterrupt:
        if options.name == "fit":
            print("\ntrain: interrupted; the last epoch's checkpoint is kept", file=sys.stderr)
        raise
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train", description="Look at data, train, evaluate, compare."
    )
    commands = parser.add_subparsers(
        title="commands", required=True, metavar="COMMAND", dest="name"
    )

    def add(
        name: str, text: str, command: Callable[[argparse.Namespace], None], *, data: bool = True
    ) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.add_argument("--debug", action="store_true", help="show tracebacks")
        if data:
            made.add_argument(
                "--data",
                type=Path,
                required=True,
                metavar="PATH",
                help="fer2013.csv (plain, .gz, .zip), Kaggle's folder or zip, or class folders",
            )
            made.add_argument(
                "--votes", type=Path, help="FER+'s fer2013new.csv (default: beside the data)"
            )
            made.add_argument(
                "--cache",
                type=Path,
                default=Path("~/.cache/emotion-edge"),
                help="where decoded data is kept (default: %(default)s)",
            )
        made.set_defaults(command=command)
        return made

    fit = add("fit", "train a configuration; goes on where a killed run stopped", _fit)
    fit.add_argument("--config", type=Path, required=True, help="train/configs/NAME.toml")
    fit.add_argument("--out", type=Path, help="the run's folder (default: runs/NAME)")
    fit.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="change a value of the configuration (and of those before it), e.g. fit.epochs=3",
    )
    fit.add_argument(
        "--fast-run",
        action="store_true",
        help=f"{FAST_EPOCHS} epochs: a sketch in minutes, to see every step work",
    )
    fit.add_argument("--keep-leaks", action="store_true", help="do not drop the leaking rows")
    fit.add_argument("--deterministic", action="store_true", help="bit-equal on equal machines")
    fit.add_argument("--devices", type=int, default=1, metavar="N", help="train on N devices")
    fit.add_argument("--save-h5", action="store_true", help="also write the legacy .h5")
    fit.add_argument("--no-tensorboard", action="store_true", help="write no TensorBoard log")
    fit.add_argument("--overwrite", action="store_true", help="begin anew in an existing folder")

    finish = add("finish", "fold head share and temperature again, without training", _finish)
    finish.add_argument("run", type=Path, help="a folder that fit wrote")
    finish.add_argument("--mix", type=float, help="share of the votes head (default: the run's)")
    finish.add_argument("--save-h5", action="store_true", help="also write the legacy .h5")

    soften = add("soften", "a teacher's averaged predictions, to train students on", _soften)
    soften.add_argument("runs", type=Path, nargs="+", help="folders that fit wrote")
    soften.add_argument("--out", type=Path, required=True, help="the .npz to write")
    soften.add_argument("--views", type=int, default=8, help="augmented views of each face")
    soften.add_argument("--overwrite", action="store_true", help="replace an existing file")

    evaluate = add("evaluate", "score a .keras, .h5, .hdf5 or .tflite", _evaluate)
    evaluate.add_argument("model", type=Path)
    evaluate.add_argument(
        "--scale",
        default="1",
        help="for a Keras file without a Rescaling layer: input = pixel * scale + offset, "
        "e.g. 1/127.5 (default 1)",
    )
    evaluate.add_argument("--offset", default="0", help="e.g. -1 (default 0)")
    evaluate.add_argument("--split", default="PublicTest", help="PublicTest or PrivateTest")
    evaluate.add_argument("--out", type=Path, help="folder (default: runs/evaluate/MODEL-SPLIT)")
    evaluate.add_argument("--no-robustness", action="store_true", help="skip the perturbed faces")
    evaluate.add_argument("--overwrite", action="store_true", help="replace existing files")

    compare = add("compare", "several runs in one table and picture", _compare, data=False)
    compare.add_argument("runs", type=Path, nargs="+", help="folders of fit or evaluate")
    compare.add_argument("--out", type=Path, default=Path("runs/compare"))
    compare.add_argument(
        "--against",
        default="",
        metavar="SECTION.KEY",
        help="also plot accuracy over what the runs differ in, e.g. targets.raw_votes",
    )
    compare.add_argument("--overwrite", action="store_true", help="replace existing files")

    data = add("data", "report on a data set: counts, twins, conflicts, contact sheets", _data)
    data.add_argument("--out", type=Path, default=Path("runs/data"))
    data.add_argument("--overwrite", action="store_true", help="replace existing files")

    picture = add("augment", "a picture of augmented faces", _augment)
    picture.add_argument("--config", type=Path, required=True, help="train/configs/NAME.toml")
    picture.add_argument("--out", type=Path, default=Path("runs/augment"), help="path and name")
    return parser


def number(text: str, option: str) -> float:
    """The value of an option: a number or a fraction. Raises UsageError."""
    try:
        above, _, below = text.partition("/")
        return float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(f"{option} {text!r}: give a number or a fraction like 1/255") from error


def _quiet() -> None:
    # TensorFlow reads it once, on import.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def _load(options: argparse.Namespace, *, clean: bool = True):  # type: ignore[no-untyped-def]
    from train.data import load_fer2013

    return load_fer2013(options.data, votes=options.votes, clean=clean, cache=options.cache)


def _fit(options: argparse.Namespace) -> None:
    from train.config import load_config, parse_overrides

    overrides = parse_overrides(options.set)
    if options.fast_run:
        overrides["fit"] = {"epochs": FAST_EPOCHS} | overrides.get("fit", {})
    config = load_config(options.config, overrides=overrides)
    data = _load(options, clean=not options.keep_leaks)
    _quiet()
    from train.finish import train

    folder = options.out or Path("runs") / config.name
    train(
        config,
        data,
        folder,
        overrides=overrides,
        overwrite=options.overwrite,
        save_h5=options.save_h5,
        deterministic=options.deterministic,
        device_count=options.devices,
        tensorboard=not options.no_tensorboard,
    )
    print(f"{folder / 'model.keras'}\n{folder / 'report.md'}")


def _finish(options: argparse.Namespace) -> None:
    data = _load(options)
    _quiet()
    from train.finish import finish, load_run

    config, model = load_run(options.run, data)
    if options.mix is not None:
        targets = dataclasses.replace(config.targets, mix=options.mix)
        config = dataclasses.replace(config, targets=targets)
    finish(model, config, data, options.run, save_h5=options.save_h5)
    print(options.run / "model.keras")


def _soften(options: argparse.Namespace) -> None:
    from train.files import refuse_existing

    refuse_existing(options.out, options.overwrite)
    data = _load(options)
    _quiet()
    from train.finish import soften

    soften(options.runs, data, options.out, views=options.views)
    print(options.out)


def _evaluate(options: argparse.Namespace) -> None:
    _quiet()
    from train.evaluate import evaluate, markdown

    out = options.out or Path("runs/evaluate") / f"{options.model.stem}-{options.split}"
    figures = evaluate(
        options.model,
        _load(options),
        options.split,
        out,
        scale=number(options.scale, "--scale"),
        offset=number(options.offset, "--offset"),
        overwrite=options.overwrite,
        with_robustness=not options.no_robustness,
    )
    print(markdown(figures))
    print(f"written to {out}")


def _compare(options: argparse.Namespace) -> None:
    from train.compare import compare

    print(compare(options.runs, options.out, against=options.against, overwrite=options.overwrite))


def _data(options: argparse.Namespace) -> None:
    from train.data_report import report

    page = report(
        options.data,
        options.out,
        votes=options.votes,
        cache=options.cache,
        overwrite=options.overwrite,
    )
    print(f"{page}\nwritten to {options.out}")


def _augment(options: argparse.Namespace) -> None:
    from train.config import load_config
    from train.data_report import augmentation_picture

    augmentation_picture(_load(options), load_config(options.config).augment, options.out)
    print(options.out.with_suffix(".png"))


if __name__ == "__main__":
    sys.exit(main())
