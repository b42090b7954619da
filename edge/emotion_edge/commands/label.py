"""Labels an archive of images: all cores or a cluster, and a run that can be continued."""

from __future__ import annotations

import argparse
import dataclasses
import resource
import sys
from pathlib import Path
from typing import Any

from emotion_edge.archive import output
from emotion_edge.archive.job import Job, check_name, check_out
from emotion_edge.archive.recipe import Recipe, Work
from emotion_edge.archive.run import Progress, carry_out
from emotion_edge.cameras.photos import is_photo
from emotion_edge.commands.flags import add_recipe_arguments, named_path, recipe
from emotion_edge.detectors import chosen_detector
from emotion_edge.errors import UsageError
from emotion_edge.model.shipped import shipped_models
from emotion_edge.version import __version__

HELP = "label a folder or a list of images with all cores; continues where a killed run stopped"

_MOST_WORKERS = 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument(
        "source",
        type=named_path,
        metavar="FOLDER_OR_LIST",
        help="a folder, with the folders in it, or a text file with one path per line",
    )
    parser.add_argument(
        "--out",
        type=named_path,
        required=True,
        metavar="FILE",
        help="records.parquet or records.jsonl",
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes (default: one for each core)"
    )
    parser.add_argument(
        "--ray",
        nargs="?",
        const="auto",
        metavar="ADDRESS",
        help="run on a Ray cluster; default: the one that this machine is part of",
    )
    add_recipe_arguments(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    parser.add_argument(
        "--restart", action="store_true", help="drop an unfinished run instead of continuing it"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def run(options: argparse.Namespace) -> int:
    """Label every image; 1 when some could not be read."""
    out, source = options.out, options.source
    if options.workers is not None and not 1 <= options.workers <= _MOST_WORKERS:
        raise UsageError(f"--workers is {options.workers}: use 1 to {_MOST_WORKERS}")
    if options.workers is not None and options.ray is not None:
        raise UsageError("--workers and --ray exclude each other: Ray uses the cluster's cores")
    if not source.is_dir() and source.is_file() and is_photo(source):
        raise UsageError(f"{source} is an image: use emotion-edge image, or give a list of paths")
    check_name(out)
    with Job(out) as job:
        if job.was_placed():
            print(f"emotion-edge: {out} was complete already", file=sys.stderr)
            return 0
        check_out(out, overwrite=options.overwrite)
        if out.suffix == ".parquet":
            output.require_parquet()
        chosen = _chosen(recipe(options))
        classifier = chosen.open().classifier
        work = Work(recipe=chosen, folder=str(Path.cwd()), model_sha256=chosen.model_sha256())
        progress = Progress(quiet=options.quiet)
        with _workers(work, options) as workers:
            continues = job.begin(
                source,
                {
                    "version": __version__,
                    "model_sha256": work.model_sha256,
                    **_settings(chosen),
                    "labels": list(classifier.labels),
                },
                workers=workers.workers,
                restart=options.restart,
            )
            if continues:
                progress.note(f"continues the run in {job.folder}")
            try:
                carry_out(job, workers, progress)
            except KeyboardInterrupt:
                progress.note(
                    f"interrupted; {progress.done:,} of {progress.total:,} images are done: "
                    "repeat the command to continue"
                )
                raise
        repeated = job.manifest["repeated"]
        summary = output.write(job)
    _report(summary, progress, repeated, local=options.ray is None)
    if summary.unreadable:
        print(
            f"emotion-edge: {summary.unreadable:,} images could not be read: "
            f"{output.unreadable_file(out)}",
            file=sys.stderr,
        )
    print(out)
    return 1 if summary.unreadable else 0


def _chosen(given: Recipe) -> Recipe:
    """The recipe with what ``auto`` means here, so that every process and machine does the same."""
    is_file = given.model not in shipped_models() and Path(given.model).is_file()
    model = str(Path(given.model).absolute()) if is_file else given.model
    return dataclasses.replace(given, model=model, detector=chosen_detector(given.detector))


def _settings(chosen: Recipe) -> dict[str, Any]:
    fields = {
        each.name: getattr(chosen, each.name)
        for each in dataclasses.fields(chosen)
        if each.name != "backend"
    }
    return {**fields, "backend": chosen.backend.to_record()}


def _workers(work: Work, options: argparse.Namespace) -> Any:
    if options.ray is not None:
        from emotion_edge.archive.cluster import Cluster

        return Cluster(work, options.ray)
    from emotion_edge.archive.local import Processes, cores

    return Processes(work, options.workers or cores())


def _report(summary: output.Summary, progress: Progress, repeated: int, *, local: bool) -> None:
    text = f"{summary.images:,} images, {summary.faces:,} faces"
    if progress.labelled:
        text += (
            f"; {progress.labelled:,} in {progress.seconds:.1f} s: "
            f"{progress.labelled / progress.seconds:,.1f} images/s"
        )
        if local:
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            each = (used.ru_utime + used.ru_stime) / progress.labelled
            text += f", {each:.4f} CPU-seconds each"
    if repeated:
        text += f"; paths that the list repeats were labelled once ({repeated:,} repetitions)"
    if summary.unsearched:
        text += (
            f"; {summary.unsearched:,} were not searched everywhere for small faces, for want of "
            "time: see --max-seconds"
        )
    print(text, file=sys.stderr)
