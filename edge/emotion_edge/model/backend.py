"""The TFLite runtimes behind one door.

LiteRT (``ai_edge_litert``) is what the package installs. ``tflite_runtime`` 2.14 and TensorFlow's
own interpreter share its ``Interpreter`` class and are used when asked for by name, or when they
are all there is.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType, ModuleType
from typing import Any

from emotion_edge.errors import ModelError, UsageError

RUNTIMES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        # name: (module that has Interpreter, distribution that names its version)
        "litert": ("ai_edge_litert.interpreter", "ai-edge-litert"),
        "tflite-runtime": ("tflite_runtime.interpreter", "tflite-runtime"),
        "tensorflow": ("tensorflow.lite.python.interpreter", "tensorflow"),
    }
)


def open_interpreter(
    model: bytes, *, runtime: str = "auto", threads: int = 1, xnnpack: bool = True
) -> Any:
    """An ``Interpreter`` over a FlatBuffer, tensors allocated.

    model: the bytes of a ``.tflite``.
    runtime: a key of ``RUNTIMES``, or ``auto`` for the first installed, TensorFlow left out.
    threads: of the runtime's pool. xnnpack: False takes the built-in kernels.
    Raises UsageError for an unknown or missing runtime, ModelError when it refuses the model.
    """
    module = import_runtime(runtime)
    options: dict[str, Any] = {}
    if not xnnpack:
        options["experimental_op_resolver_type"] = (
            module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        )
    try:
        with _without_notices():
            interpreter = module.Interpreter(model_content=model, num_threads=threads, **options)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ModelError(
            f"{module.__name__.split('.')[0]} refuses the model: {str(error).splitlines()[0]}; "
            "copy the file again or convert it again"
        ) from error
    return interpreter


def installed() -> dict[str, str]:
    """The installed runtimes, by name, with their versions; none is imported."""
    from importlib import metadata  # a tenth of this package's import, and few ask for versions

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
    """The module that has ``Interpreter``; arguments and errors as ``open_interpreter``."""
    if runtime == "auto":
        names = [name for name in RUNTIMES if name != "tensorflow"]
    elif runtime in RUNTIMES:
        names = [runtime]
    else:
        raise UsageError(f"runtime {runtime!r}; expected auto, {', '.join(RUNTIMES)}")
    for name in names:
        try:
            return importlib.import_module(RUNTIMES[name][0])
        except ImportError:
            continue
    wanted = RUNTIMES[names[0]][1]
    raise UsageError(f"no TFLite runtime ({', '.join(names)}) is installed: pip install {wanted}")


@contextmanager
def _without_notices() -> Iterator[None]:
    """Hold back what native code calls INFO on standard error, which belongs to errors.

    The runtime announces the delegate of each interpreter there and has no switch for it. All
    other lines, such as a delegate's refusal, are passed on.
    """
    if not hasattr(os, "memfd_create"):  # not Linux: live with the notice
        yield
        return
    sys.stderr.flush()
    real = os.dup(2)
    with os.fdopen(os.memfd_create("notices"), "w+b") as held:  # a full disk is no obstacle
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
