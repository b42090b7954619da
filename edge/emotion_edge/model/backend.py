"""Opens a model in a TFLite runtime.

A ``Backend`` says which runtime runs the network and how. LiteRT (``ai_edge_litert``) is what the
package installs. ``tflite_runtime`` 2.14 and TensorFlow's own interpreter have the same
``Interpreter`` class; tflite-runtime is also used when it is the only one installed, TensorFlow
only when named.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from emotion_edge.errors import ModelError, UsageError
from emotion_edge.settings import Settings, key

RUNTIMES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        # name: (module that has Interpreter, distribution that names its version)
        "litert": ("ai_edge_litert.interpreter", "ai-edge-litert"),
        "tflite-runtime": ("tflite_runtime.interpreter", "tflite-runtime"),
        "tensorflow": ("tensorflow.lite.python.interpreter", "tensorflow"),
    }
)
_DELEGATE_SYMBOLS = ("tflite_plugin_create_delegate", "tflite_plugin_destroy_delegate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend(Settings):
    """What runs the network."""

    runtime: str = key(
        "auto",
        "`auto`, `litert`, `tflite-runtime` or `tensorflow`; `auto` takes the first of LiteRT and "
        "tflite-runtime that is installed.",
    )
    threads: int = key(1, "threads that the runtime may use.", ge=1, le=64)
    xnnpack: bool = key(True, "false uses the built-in kernels instead of XNNPACK.")
    delegate: Path | None = key(
        None,
        "a shared library with an external TFLite delegate, such as `libedgetpu.so.1`: a file, or "
        "a name in the system's library path.",
    )

    def check(self) -> None:
        """The runtime is one of ``RUNTIMES``."""
        if self.runtime not in ("auto", *RUNTIMES):
            raise UsageError(f"runtime is {self.runtime!r}: use auto, {', '.join(RUNTIMES)}")

    def to_record(self) -> dict[str, Any]:
        """The fields as JSON values; ``Backend(**record)`` gives the same value."""
        return {
            "runtime": self.runtime,
            "threads": self.threads,
            "xnnpack": self.xnnpack,
            "delegate": str(self.delegate) if self.delegate else None,
        }


LITERT = Backend(runtime="litert")
"""What the package installs; the converter's gate and the published figures use it."""


def open_interpreter(model: bytes, backend: Backend | None = None) -> Any:
    """An ``Interpreter`` over a FlatBuffer, with its tensors allocated.

    model: the bytes of a ``.tflite`` file. backend: None for the default one.
    Raises UsageError when the runtime is not installed or the delegate cannot be loaded,
    ModelError when the runtime or the delegate refuses the model.
    """
    backend = backend or Backend()
    module = import_runtime(backend.runtime)
    options: dict[str, Any] = {}
    if not backend.xnnpack:
        options["experimental_op_resolver_type"] = (
            module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        )
    with _without_notices():
        if backend.delegate is not None:
            options["experimental_delegates"] = [_load_delegate(module, backend.delegate)]
        try:
            interpreter = module.Interpreter(
                model_content=model, num_threads=backend.threads, **options
            )
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            runtime = module.__name__.split(".")[0]
            refused = f"{runtime} with the delegate {backend.delegate}"
            advice = "try without --delegate"
            if backend.delegate is None:
                refused, advice = runtime, "copy the file again or convert it again"
            raise ModelError(
                f"{refused} refuses the model: {str(error).splitlines()[0]}; {advice}"
            ) from error
    return interpreter


def installed() -> dict[str, str]:
    """The installed runtimes, by name, with their versions; none is imported."""
    from importlib import metadata  # a tenth of this package's import time, and rarely needed

    versions = {}
    for name, (_, distribution) in RUNTIMES.items():
        for candidate in (distribution, f"{distribution}-cpu"):
            try:
                versions[name] = metadata.version(candidate)
                break
            except metadata.PackageNotFoundError:
                continue
    return versions


def import_runtime(runtime: str = "auto") -> ModuleType:
    """The module that has ``Interpreter``.

    runtime: as in ``Backend``.
    Raises UsageError when the runtime is unknown or not installed.
    """
    names = [name for name in RUNTIMES if name != "tensorflow"] if runtime == "auto" else [runtime]
    if unknown := [name for name in names if name not in RUNTIMES]:
        raise UsageError(f"runtime {unknown[0]!r}: use auto, {', '.join(RUNTIMES)}")
    for name in names:
        try:
            return importlib.import_module(RUNTIMES[name][0])
        except ImportError:
            continue
    package = RUNTIMES[names[0]][1]
    raise UsageError(f"no TFLite runtime ({', '.join(names)}) is installed: pip install {package}")


def _load_delegate(module: ModuleType, library: Path) -> Any:
    """An external delegate, as the runtime's ``Interpreter`` takes it. Raises UsageError."""
    # A name without a folder is left to the system's loader, unless such a file is here.
    name = str(library.resolve()) if library.exists() else str(library)
    # The runtime's own loader fails on a wrong file with a traceback from its destructor.
    try:
        loaded = ctypes.CDLL(name)
    except OSError as error:
        raise UsageError(f"cannot load the delegate {library}: {error}") from error
    if missing := [symbol for symbol in _DELEGATE_SYMBOLS if not hasattr(loaded, symbol)]:
        raise UsageError(
            f"{library} is not an external TFLite delegate: it does not export {missing[0]}; "
            "give the shared library that the accelerator's maker supplies"
        )
    try:
        return module.load_delegate(name)
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split()) or "it gave no reason"
        raise UsageError(
            f"the delegate {library} did not start: {reason}; "
            "check that its device is connected, or try without --delegate"
        ) from error


@contextmanager
def _without_notices() -> Iterator[None]:
    """Drop the INFO lines that native code writes to standard error, which is for errors.

    The runtime announces every interpreter's delegate there and has no switch for it. All other
    lines, such as a delegate's refusal, are passed on.
    """
    if not hasattr(os, "memfd_create"):  # not Linux: the notice stays
        yield
        return
    sys.stderr.flush()
    real = os.dup(2)
    with os.fdopen(os.memfd_create("notices"), "w+b") as held:  # not on the disk
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(real, 2)
            os.close(real)
            held.seek(0)
            for line in held:
                if not line.startswith(b"INFO:"):
                    os.write(2, line)
