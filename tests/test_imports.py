"""Imports go one way, ``edge <- train <- convert <- benchmarks``, and TensorFlow stays at home."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORDER = ("edge", "train", "convert", "benchmarks")
PACKAGE = {
    "edge": "emotion_edge",
    "train": "train",
    "convert": "convert",
    "benchmarks": "benchmarks",
}
LAYERS = (
    ("errors", "values", "version"),
    ("files", "head", "settings"),
    ("records", "registry", "shares", "zones"),
    ("model",),
    ("annotate", "tracker"),
    ("privacy",),
    ("cameras", "detectors", "sinks"),
    ("pipeline",),
    ("factory",),
    ("kiosk",),
    ("archive", "bench", "web"),
    ("commands",),
    ("cli",),
    ("__main__",),
)
"""Of ``emotion_edge``: a part imports from the lines above its own."""

HEAVY = {"tensorflow", "keras", "tf_keras", "jax", "torch", "sklearn"}


def modules(folder: str) -> list[Path]:
    """The files of a folder; of ``edge``, those that are installed."""
    return sorted((ROOT / ("edge/emotion_edge" if folder == "edge" else folder)).rglob("*.py"))


def imported(path: Path, *, top_level: bool = False, whole: bool = False) -> set[str]:
    """First names of what a file imports, or with ``whole`` the dotted names.

    top_level: only what importing the file imports.
    """
    tree = ast.parse(path.read_text())
    nodes: list[ast.AST] = []
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        nodes.append(node)
        late = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if not ((top_level and (late or for_types)) or (whole and for_types)):
            stack.extend(ast.iter_child_nodes(node))
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            if whole and node.module == "emotion_edge":
                names.remove(node.module)
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names if whole else {name.split(".")[0] for name in names}


@pytest.mark.parametrize("folder", ORDER)
def test_imports_go_one_way(folder: str) -> None:
    later = {PACKAGE[name] for name in ORDER[ORDER.index(folder) + 1 :]}
    assert modules(folder)
    for path in modules(folder):
        assert not imported(path) & later, f"{path} imports a folder to its right"


def test_edge_imports_only_what_is_below() -> None:
    """``LAYERS`` from the values up to the commands; the package itself is above them all."""
    root = ROOT / "edge/emotion_edge"
    level = {part: number for number, parts in enumerate(LAYERS) for part in parts}
    for path in modules("edge"):
        part = path.relative_to(root).with_suffix("").parts[0]
        if part == "__init__":
            continue
        for name in imported(path, whole=True):
            package, _, inner = name.partition(".")
            if package != "emotion_edge":
                continue
            other = inner.partition(".")[0]
            assert other in level, f"{path} imports {name}, which is not in LAYERS"
            assert other == part or level[other] < level[part], f"{path} imports {name}"


def test_edge_never_imports_tensorflow_or_keras() -> None:
    for path in modules("edge"):
        assert not imported(path) & HEAVY, path


def test_edge_imports_its_extras_late() -> None:
    extras = {"matplotlib", "paho", "gradio", "PIL", "picamera2", "tkinter", "segno", "reportlab"}
    extras |= {"pyarrow", "ray"}
    for path in modules("edge"):
        if path.parent.name != "web":  # all of it is one extra, and imported late itself
            assert not imported(path, top_level=True) & extras, path


def test_every_module_of_edge_imports_without_tensorflow() -> None:
    """In a process where the heavy modules and every extra are absent."""
    absent = sorted(HEAVY | {"matplotlib", "paho", "gradio", "PIL", "picamera2"})
    names = [
        ".".join(path.relative_to(ROOT / "edge").with_suffix("").parts)
        for path in modules("edge")
        if path.name not in ("__main__.py", "__init__.py") and path.parent.name != "web"
    ]
    program = (
        "import sys, importlib\n"
        f"sys.modules.update(dict.fromkeys({absent!r}))\n"
        f"[importlib.import_module(name) for name in {names!r}]\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT / "edge",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_importing_the_package_is_light() -> None:
    """Reading an image and classifying it must not pay for the web page's modules."""
    program = "import sys, emotion_edge; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT / "edge",
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert not loaded & (HEAVY | {"matplotlib", "paho", "gradio", "PIL", "asyncio", "http"})


def test_only_edge_is_packaged() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == [
        "edge/emotion_edge"
    ]


def test_no_base_dependency_is_heavy() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {need.split(">")[0].strip() for need in project["dependencies"]}
    assert names == {"ai-edge-litert", "numpy", "opencv-python-headless"}
