"""Runs quickstart.ipynb from start to end and stores its outputs in it.

    python train/notebooks/make_quickstart.py --data fer2013.csv
    python train/notebooks/make_quickstart.py --links

The cells are edited in Jupyter or by hand; this script only sets the repository's address in the
badge and the clone cell, and stores what the cells print and draw. The address is ``Repository``
in ``[project.urls]`` of pyproject.toml. ``--links`` sets it without running anything.

FER2013's images belong to their owners: only cells with the tag ``image`` may store one, and they
show curves, a confusion matrix and a photo. A notebook that breaks a rule is not written.
It needs the extra [dev].
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

import nbformat

from emotion_edge.files import size_text, write_whole

ROOT = Path(__file__).parents[2]
NOTEBOOK = Path(__file__).with_name("quickstart.ipynb")
MOST_BYTES = 1_500_000
MAY_STORE = {"curves.png", "confusion.png", "PHOTO"}
"""What a cell with the tag ``image`` may show."""

_BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
_COLAB = "https://colab.research.google.com/"
_PATH = "train/notebooks/quickstart.ipynb"
_CLONE = re.compile(r'(?<=os\.environ\.get\("REPOSITORY", ")[^"]*(?="\))')
_NOISE = re.compile(r"oneDNN|cuda|TF-TRT|AVX2|absl::|WARNING|Warning|Traceback", re.IGNORECASE)


def main() -> None:
    """Run the notebook, check the result and write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", type=Path, help="fer2013.csv, in any packing")
    what.add_argument("--links", action="store_true", help="set the address, run nothing")
    options = parser.parse_args()
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    set_address(notebook, public_address())
    if options.data:
        began = time.monotonic()
        execute(notebook, options.data.resolve())
        print(f"ran in {time.monotonic() - began:.0f} s")
    text = written(notebook)
    if wrong := problems(notebook):
        kept = write_whole(ROOT / "runs" / "quickstart-refused.ipynb", text)
        lines = "\n".join(f"- {line}" for line in wrong)
        raise SystemExit(f"not stored, see {kept}:\n{lines}")
    write_whole(NOTEBOOK, text)
    print(f"{NOTEBOOK}, {size_text(len(text))}")


def public_address(project: Path = ROOT / "pyproject.toml") -> str:
    """``Repository`` in ``[project.urls]``, without a final slash; empty if it is not set."""
    urls = tomllib.loads(project.read_text(encoding="utf-8"))["project"].get("urls", {})
    return str(urls.get("Repository", "")).rstrip("/").removesuffix(".git")


def badge(address: str) -> str:
    """The first cell: a Colab badge and, while there is no address, what to do instead."""
    github = re.fullmatch(r"https://github\.com/([^/]+/[^/]+)", address)
    if github:
        link = f"{_COLAB}github/{github[1]}/blob/main/{_PATH}"
        return f"[![Open in Colab]({_BADGE})]({link})"
    # Colab opens notebooks of GitHub by their address, and any other by upload.
    return f"[![Open in Colab]({_BADGE})]({_COLAB}) (there, upload this file)"


def set_address(notebook: Any, address: str) -> None:
    """Put the address into the badge and the clone cell."""
    notebook.cells[0].source = badge(address)
    (cell,) = [cell for cell in notebook.cells if _CLONE.search(cell.source)]
    cell.source = _CLONE.sub(lambda _: address, cell.source)


def execute(notebook: Any, data: Path) -> None:
    """Run every cell in a new kernel, with a run folder that is deleted afterwards."""
    import nbclient

    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"DATA": str(data), "RUN": f"{folder}/quickstart"}
        # A history and a profile of their own, in no one's home.
        os.environ["IPYTHONDIR"] = f"{folder}/ipython"
        client = nbclient.NotebookClient(
            notebook,
            timeout=3600,
            kernel_name="python3",
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": str(NOTEBOOK.parent)}},
        )
        client.execute()
        for cell in notebook.cells:
            for output in cell.get("outputs", []):
                clean(output, folder)
    notebook.metadata.language_info = {"name": "python"}


def clean(output: Any, folder: str) -> None:
    """Replace this machine's paths by those that a reader sees."""
    import matplotlib

    places = {folder: "runs", str(ROOT): "emotion-edge", matplotlib.get_data_path(): "matplotlib"}
    for part in (output, output.get("data", {})):
        for kind in ("text", "text/plain", "text/markdown"):
            if kind in part:
                for here, shown in places.items():
                    part[kind] = part[kind].replace(here, shown)


def problems(notebook: Any) -> list[str]:
    """What keeps this notebook from being published, one line per problem."""
    nbformat.validate(notebook)
    wrong = []
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    counts = [cell.execution_count for cell in code]
    if counts != list(range(1, len(code) + 1)):
        wrong.append(f"cells ran in the order {counts}: run all of them, once, in order")
    for cell in code:
        first = cell.source.splitlines()[0]
        tagged = "image" in cell.metadata.get("tags", [])
        if tagged and not any(name in cell.source for name in MAY_STORE):
            wrong.append(f"a cell tagged image shows none of {sorted(MAY_STORE)}: {first}")
        for output in cell.outputs:
            if output.output_type == "error":
                wrong.append(f"a cell failed: {first}")
            kinds = set(output.get("data", {}))
            if not tagged and any(kind.startswith("image/") for kind in kinds):
                wrong.append(f"a cell without the tag image stores one: {first}")
            text = output.get("text", "") + output.get("data", {}).get("text/markdown", "")
            if found := _NOISE.search(text):
                wrong.append(f"noise in the output ({found[0]}): {first}")
            if found := re.search(r"(?<![\w.:/])/(tmp|home|root|work|Users)/\S*", text):
                wrong.append(f"a path of this machine in the output ({found[0]}): {first}")
    if (size := len(written(notebook))) > MOST_BYTES:
        wrong.append(f"{size_text(size)} is too large: at most {size_text(MOST_BYTES)}")
    return wrong


def written(notebook: Any) -> str:
    """The file's text."""
    return str(nbformat.writes(notebook)) + "\n"  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
