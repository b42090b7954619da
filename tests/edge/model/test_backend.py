"""Runtimes and external delegates, with a delegate that the test compiles."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from emotion_edge.cli import main
from emotion_edge.errors import ModelError, UsageError
from emotion_edge.model import manifest as manifests
from emotion_edge.model.backend import Backend, open_interpreter
from emotion_edge.model.classifier import TFLiteClassifier

TINY = Path(__file__).parents[1] / "tiny.tflite"
FACES = np.random.default_rng(3).integers(0, 256, (4, 48, 48), dtype=np.uint8)

# A delegate in the binary interface of TFLite's external delegates. It takes no operator, appends
# a line to LOG when it is offered the graph, and answers that offer with STATUS.
SOURCE = """
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct delegate {
  void *data;
  int (*prepare)(void *context, struct delegate *self);
  void *copy_from_buffer, *copy_to_buffer, *free_buffer;
  int64_t flags;
  void *opaque_builder;
};

static int prepare(void *context, struct delegate *self) {
  FILE *log = fopen(LOG, "a");
  fputs("prepared\\n", log);
  fclose(log);
  return STATUS;
}

static struct delegate only = {.prepare = prepare};

struct delegate *tflite_plugin_create_delegate(
    char **keys, char **values, size_t count, void (*report)(const char *)) {
  if (STATUS == 2) { report("no device answers"); return NULL; }
  return &only;
}

void tflite_plugin_destroy_delegate(struct delegate *self) {}
"""

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler (cc)")


def build(folder: Path, source: str = SOURCE, status: int = 0) -> Path:
    """Compile a shared library; its delegate logs to ``log`` in the same folder."""
    (folder / "delegate.c").write_text(source)
    library = folder / "delegate.so"
    command = ["cc", "-shared", "-fPIC", f'-DLOG="{folder / "log"}"', f"-DSTATUS={status}"]
    subprocess.run([*command, "-o", library, folder / "delegate.c"], check=True)
    return library


def test_a_backend_survives_json() -> None:
    backend = Backend(runtime="litert", threads=2, xnnpack=False, delegate=Path("a.so"))
    assert Backend(**json.loads(json.dumps(backend.to_record()))) == backend
    assert Backend(**Backend().to_record()) == Backend()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"threads": 0}, "threads is 0: use 1 to 64"), ({"runtime": "onnx"}, "use auto, litert")],
)
def test_a_wrong_backend_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Backend(**wrong)  # type: ignore[arg-type]


@needs_compiler
def test_a_delegate_is_offered_the_graph(tmp_path: Path) -> None:
    library = build(tmp_path)
    delegated = TFLiteClassifier.load(TINY, Backend(delegate=library))
    assert (tmp_path / "log").read_text() == "prepared\n"
    assert np.array_equal(delegated.predict(FACES), TFLiteClassifier.load(TINY).predict(FACES))


@needs_compiler
def test_the_commands_pass_the_delegate_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    library = build(tmp_path)
    words = ["--rounds", "1", "--runs", "1", "--restarts", "1", "--warmup", "0", "--json"]
    assert main(["bench", str(TINY), "--delegate", str(library), *words]) == 0
    (case,) = json.loads(capfd.readouterr().out)["cases"]
    assert case["delegate"] == str(library)
    assert (tmp_path / "log").read_text() == "prepared\n"
    words = ["--camera", "pattern", "--frames", "1", "--quiet", "--model", str(TINY)]
    assert main(["run", "--delegate", str(library), *words]) == 0
    assert (tmp_path / "log").read_text() == "prepared\n" * 2


@needs_compiler
def test_a_delegate_that_refuses_the_graph_is_one_line(tmp_path: Path) -> None:
    library = build(tmp_path, status=1)
    with pytest.raises(ModelError, match=r"delegate\.so refuses the model: .*; try without") as one:
        TFLiteClassifier.load(TINY, Backend(delegate=library))
    assert "\n" not in str(one.value)


@needs_compiler
def test_a_delegate_without_its_device_gives_its_reason(tmp_path: Path) -> None:
    library = build(tmp_path, status=2)
    with pytest.raises(UsageError, match=r"did not start: .*no device answers; check"):
        TFLiteClassifier.load(TINY, Backend(delegate=library))


@needs_compiler
def test_a_library_that_is_not_a_delegate_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    library = build(tmp_path, "int answer(void) { return 42; }")
    words = ["image", str(tmp_path / "a.png"), "--model", str(TINY), "--delegate", str(library)]
    assert main(words) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "is not an external TFLite delegate: it does not export tflite_plugin_create" in line


@pytest.mark.parametrize("text", [None, "not a library"])
def test_a_file_that_is_not_a_library_is_one_line(
    tmp_path: Path, text: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    library = tmp_path / "delegate.so"
    if text is not None:
        library.write_text(text)
    assert main(["image", "a.png", "--model", str(TINY), "--delegate", str(library)]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"emotion-edge: cannot load the delegate {library}: ")


def test_a_missing_runtime_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("emotion_edge.model.backend.importlib.import_module", absent)
    model, _ = manifests.load(TINY)
    with pytest.raises(UsageError, match="pip install tflite-runtime"):
        open_interpreter(model, Backend(runtime="tflite-runtime"))
