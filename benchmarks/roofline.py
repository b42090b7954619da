"""Measures how much of the machine a model uses, and where its time goes.

The roof is the rate that this runtime reaches here with work that suits it: the best of three
large convolutions, in int8 and in float32, timed in turn with the models. A model's share is its
multiply-accumulates per second over the roof of its arithmetic. A network of many small layers
cannot reach the roof; the operator table shows which layers keep it down, and each one's rate.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.variants import find_variants
from emotion_edge.bench import measure as bench
from emotion_edge.bench import operators
from emotion_edge.bench.measure import Case, Model, Plan, Worker
from emotion_edge.bench.report import (
    add_output_arguments,
    check_outputs,
    emit,
    progress_of,
    table,
)
from emotion_edge.commands.bench import operator_profile, operator_table
from emotion_edge.model.backend import LITERT
from emotion_edge.model.shipped import shipped_models

HELP = "the machine's attainable int8 and float rate, each model's share, and where time goes"
SHARES = {"fast": 0.35, "accurate": 0.50}
"""Shares of the roof that the shipped int8 models must reach."""
NOOP_MS = 0.020
ROOFS = ((3, 32, 128), (1, 32, 128), (3, 16, 256))
"""Kernel, side and channels of the convolutions whose best rate is the roof."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("models", nargs="*", metavar="MODEL", help="default: every shipped one")
    parser.add_argument(
        "--variants", default="int8,float32", metavar="V,..", help="default: int8,float32"
    )
    parser.add_argument("--data", type=Path, help="FER2013, to convert variants that do not exist")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--restarts", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-operators", action="store_true", help="the shares alone")
    add_output_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Measure and report."""
    check_outputs(options)
    plan = Plan(rounds=options.rounds, restarts=options.restarts)
    progress = progress_of(options)
    names = options.models or list(shipped_models())
    measured = find_variants(names, options.variants.split(","), options.data, progress)
    roofs = [
        convolution(size, integer, side=side, channels=channels)
        for size, side, channels in ROOFS
        for integer in (True, False)
    ]
    everything = [no_op(), *roofs, *measured]
    with bench.document("roofline", bench.settings(plan) | {"threads": options.threads}) as result:
        cases = [Case(model, replace(LITERT, threads=options.threads)) for model in everything]
        records = bench.measure(cases, plan, lambda case: Worker(case, plan), progress)
        result |= judge(everything, records)
        result["cases"] = records
        result["operators"] = (
            [] if options.no_operators else [operator_profile(m, plan, progress) for m in measured]
        )
    progress("")
    rates = ", ".join(f"{name} {rate:.1f}" for name, rate in result["roof_gmacs"].items())
    notes = [f"the roof, GMAC/s: {rates}", table(result["bars"])]
    notes += [operator_table(part, result["roof_gmacs"]) for part in result["operators"]]
    emit(options, result, result["shares"], "\n\n".join(notes))
    return 0


def judge(models: Sequence[Model], records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Roofs, shares and bars.

    models: the no-op, the convolutions, then what is measured; records: ``bench.measure``'s.
    """
    rates = [
        operators.macs(model.flatbuffer) / record["latency_ms"]["p50"] / 1e6
        for model, record in zip(models, records, strict=True)
    ]
    roof = {"int8": 0.0, "float32": 0.0}
    shares = []
    for model, record, rate in zip(models[1:], records[1:], rates[1:], strict=True):
        arithmetic = "int8" if operators.is_integer(model.flatbuffer) else "float32"
        if model.name.startswith("convolution-"):
            roof[arithmetic] = max(roof[arithmetic], rate)
            continue
        shares.append(
            {
                "model": model.name,
                "variant": model.variant,
                "MMAC": round(operators.macs(model.flatbuffer) / 1e6, 2),
                "p50_ms": record["latency_ms"]["p50"],
                "GMAC/s": round(rate, 1),
                "share": round(rate / roof[arithmetic], 3),
            }
        )
    bars = [bar("a no-op model, ms", records[0]["latency_ms"]["p50"], "<", NOOP_MS)]
    medians = {(s["model"], s["variant"]): s["p50_ms"] for s in shares}
    for share in shares:
        name = share["model"]
        if share["variant"] != "int8":
            continue
        if name in SHARES:
            bars.append(bar(f"{name} int8, share of the roof", share["share"], ">=", SHARES[name]))
        if (name, "float32") in medians:
            gain = medians[name, "float32"] / share["p50_ms"]
            bars.append(bar(f"{name}, float32 over int8", round(gain, 3), ">=", 1.5))
    return {
        "roof_gmacs": {name: round(rate, 2) for name, rate in roof.items()},
        "shares": shares,
        "bars": bars,
    }


def bar(name: str, value: float, relation: str, limit: float) -> dict[str, Any]:
    """A figure, its limit and whether it holds. relation: ``<``, ``<=``, ``>=``."""
    holds = {"<": value < limit, "<=": value <= limit, ">=": value >= limit}[relation]
    return {"bar": name, "value": value, "limit": f"{relation} {limit:g}", "holds": holds}


# --- models made to measure --------------------------------------------------------------------


def convolution(size: int, integer: bool, *, side: int = 32, channels: int = 128) -> Model:
    """One convolution, ``size`` x ``size``, channels to channels, on a square input.

    Written with LiteRT's own schema: no TensorFlow is needed, so it runs on a board.
    """
    from ai_edge_litert.tools.flatbuffer_utils import schema_fb as fb

    rng = np.random.default_rng(0)
    kind = fb.TensorType.INT8 if integer else fb.TensorType.FLOAT32
    shape = (channels, size, size, channels)
    image = (1, side, side, channels)
    if integer:
        weights = rng.integers(-127, 128, shape).astype(np.int8)
        bias = np.zeros(channels, np.int32)
        across = np.full(channels, 1 / 127)
        scales: list[Any] = [np.array([0.02]), across, 0.02 * across, np.array([0.5])]
    else:
        weights = rng.uniform(-1, 1, shape).astype(np.float32)
        bias = np.zeros(channels, np.float32)
        scales = [None] * 4
    bias_kind = fb.TensorType.INT32 if integer else fb.TensorType.FLOAT32
    tensors = [
        _tensor(fb, "input", image, kind, 0, scales[0]),
        _tensor(fb, "weights", shape, kind, 1, scales[1]),
        _tensor(fb, "bias", (channels,), bias_kind, 2, scales[2]),
        _tensor(fb, "output", image, kind, 3, scales[3]),
    ]
    options = fb.Conv2DOptionsT()
    options.padding, options.strideW, options.strideH = fb.Padding.SAME, 1, 1
    name = f"convolution-{size}x{size}-{side}-{channels}-{'int8' if integer else 'float32'}"
    operator = (fb.BuiltinOperator.CONV_2D, 3 if integer else 1, [0, 1, 2], [3])
    return _model(name, tensors, [b"", weights.tobytes(), bias.tobytes(), b""], operator, options)


def no_op() -> Model:
    """A ReLU of seven numbers: what the measuring itself costs."""
    from ai_edge_litert.tools.flatbuffer_utils import schema_fb as fb

    tensors = [
        _tensor(fb, name, (1, 7), fb.TensorType.FLOAT32, number, None)
        for number, name in enumerate(("input", "output"))
    ]
    return _model("no-op", tensors, [b"", b""], (fb.BuiltinOperator.RELU, 1, [0], [1]), None)


def _tensor(fb: Any, name: str, shape: Sequence[int], kind: int, buffer: int, scale: Any) -> Any:
    tensor = fb.TensorT()
    tensor.name, tensor.shape, tensor.type = name, np.array(shape, np.int32), kind
    tensor.buffer = buffer + 1  # buffer 0 is empty by convention
    if scale is not None:
        tensor.quantization = fb.QuantizationParametersT()
        tensor.quantization.scale = scale.astype(np.float32)
        tensor.quantization.zeroPoint = np.zeros(len(scale), np.int64)
        tensor.quantization.quantizedDimension = 0
    return tensor


def _model(
    name: str,
    tensors: list[Any],
    contents: list[bytes],
    operator: tuple[int, int, list[int], list[int]],
    options: Any,
) -> Model:
    from ai_edge_litert.tools import flatbuffer_utils

    fb = flatbuffer_utils.schema_fb
    code, version, inputs, outputs = operator
    model, graph = fb.ModelT(), fb.SubGraphT()
    kind = fb.OperatorCodeT()
    kind.builtinCode = kind.deprecatedBuiltinCode = code
    kind.version = version
    only = fb.OperatorT()
    only.opcodeIndex, only.inputs, only.outputs = 0, inputs, outputs
    if options is not None:
        only.builtinOptionsType = fb.BuiltinOptions.Conv2DOptions
        only.builtinOptions = options
    graph.tensors, graph.operators = tensors, [only]
    graph.inputs, graph.outputs = [0], outputs
    buffers = [fb.BufferT()]
    for content in contents:
        buffer = fb.BufferT()
        buffer.data = np.frombuffer(content, np.uint8) if content else None
        buffers.append(buffer)
    model.version, model.subgraphs, model.operatorCodes, model.buffers = 3, [graph], [kind], buffers
    flatbuffer = bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    return Model.of(flatbuffer, Path(f"{name}.tflite"))
