"""Measures, layer by layer, the noise that int8 adds to each activation, and its range.

Signal-to-quantisation-noise ratio, in dB, of an activation x and its int8 counterpart q on the
same images: ``10 log10(sum x² / sum (x - q)²)``. It is measured on the running networks, so it
holds the noise of all layers before; ``lost`` is what this layer took from its best input.
An 8-bit quantiser that uses its whole range reaches 40-50 dB; below 20 dB labels flip.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert import quantize, ranges
from convert.conversion import Job
from convert.flatbuffer import Graph
from emotion_edge.model.backend import LITERT
from emotion_edge.model.classifier import TFLiteClassifier
from emotion_edge.model.manifest import Manifest
from emotion_edge.values import Image
from train import plots
from train.files import refuse_existing, write_json, write_text

EXACT = 50.0
"""Signal-to-noise ratio, in dB, given to an input without noise: the best that 8 bits can hold."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One operator's output in float and in int8.

    low, high: smallest and largest float value seen. q_low, q_high: what int8 can hold.
    clipped: share of the values outside that, percent. sqnr: dB. lost: dB against the best input.
    spread: the widest channel's range over the median channel's; large ones waste the steps of
    all the others.
    """

    index: int
    operator: str
    tensor: str
    shape: tuple[int, ...]
    low: float
    high: float
    q_low: float
    q_high: float
    clipped: float
    spread: float
    sqnr: float
    lost: float


def explain(job: Job, *, count: int = 64) -> list[Layer]:
    """Plain int8 conversion against float, on ``count`` of the judging images."""
    calibrated = job.calibrator().calibrated()
    return measure(
        calibrated.model,
        quantize.quantize(calibrated.model),
        job.manifest("int8", job.spec_of(calibrated)),
        job.judged.faces[:count],
    )


def measure(float_model: bytes, int8_model: bytes, manifest: Manifest, faces: Image) -> list[Layer]:
    """One entry for each operator of ``int8_model``, in the order of execution.

    float_model: the float FlatBuffer it was quantised from, whose tensors have the same names.
    manifest: of the int8 model. faces: uint8 ``(n, height, width[, 3])``.
    """
    graph, float_graph = Graph(int8_model), Graph(float_model)
    twin = {tensor.name: tensor.index for tensor in float_graph.tensors}
    outputs = [operator.outputs[0] for operator in graph.operators]
    pairs = {
        i: twin[graph.tensors[i].name]
        for i in (*graph.inputs, *outputs)
        if graph.tensors[i].name in twin
    }
    signal = dict.fromkeys(pairs, 0.0)
    noise = dict.fromkeys(pairs, 0.0)
    outside = dict.fromkeys(pairs, 0)
    seen = dict.fromkeys(pairs, 0)
    lows: dict[int, NDArray[Any]] = {}
    highs: dict[int, NDArray[Any]] = {}
    spec = manifest.input
    classifier = TFLiteClassifier(int8_model, manifest, LITERT)
    run_float, run_int8 = ranges.preserving(float_model), ranges.preserving(int8_model)
    for face, fed in zip(faces, quantize.inputs(faces, spec.scale, spec.offset), strict=True):
        real, quantised = run_float(fed), run_int8(classifier.tensor(face))
        for i, j in pairs.items():
            x = real(j).astype(np.float64)
            tensor = graph.tensors[i]
            q = quantised(i).astype(np.float64)
            if tensor.scales:
                q = (q - tensor.zero_points[0]) * tensor.scales[0]
                low, high = _holds(tensor)
                step = tensor.scales[0]
                outside[i] += int(((x < low - step) | (x > high + step)).sum())
            signal[i] += float((x**2).sum())
            noise[i] += float(((x - q) ** 2).sum())
            seen[i] += x.size
            channels = x.reshape(-1, x.shape[-1])
            lows[i] = np.minimum(lows.get(i, np.inf), channels.min(axis=0))
            highs[i] = np.maximum(highs.get(i, -np.inf), channels.max(axis=0))
    sqnr = {
        i: math.inf if noise[i] == 0 else 10 * math.log10(max(signal[i], 1e-30) / noise[i])
        for i in pairs
    }
    layers = []
    for operator in graph.operators:
        i = operator.outputs[0]
        if i not in pairs:
            continue
        tensor = graph.tensors[i]
        width = highs[i] - lows[i]
        middle = float(np.median(width))
        before = [sqnr[k] for k in operator.inputs if k in sqnr]
        q_low, q_high = _holds(tensor) if tensor.scales else (-math.inf, math.inf)
        layers.append(
            Layer(
                operator.index,
                operator.name.lower(),
                tensor.name,
                tensor.shape,
                float(lows[i].min()),
                float(highs[i].max()),
                q_low,
                q_high,
                100 * outside[i] / max(seen[i], 1),
                float(width.max() / middle) if middle > 0 else math.inf,
                sqnr[i],
                min(max(before, default=EXACT), EXACT) - sqnr[i],
            )
        )
    return layers


def worst(layers: Sequence[Layer], count: int = 5) -> list[Layer]:
    """The layers that lost most, the worst first."""
    finite = [layer for layer in layers if math.isfinite(layer.sqnr)]
    return sorted(finite, key=lambda layer: -layer.lost)[:count]


def table(layers: Sequence[Layer], *, count: int = 5) -> str:
    """For a person: every layer, the worst marked and named."""
    marked = {layer.index for layer in worst(layers, count)}
    lines = [
        f"{'':>3} {'operator':<18} {'shape':<14} {'float range':<21} {'int8 range':<21} "
        f"{'clipped':>8} {'spread':>7} {'SQNR':>6} {'lost':>6}"
    ]
    for layer in layers:
        lines.append(
            f"{layer.index:>3} {layer.operator:<18} {'x'.join(map(str, layer.shape[1:])):<14} "
            f"{f'{layer.low:.3g} .. {layer.high:.3g}':<21} "
            f"{f'{layer.q_low:.3g} .. {layer.q_high:.3g}':<21} "
            f"{layer.clipped:>7.2f}% {layer.spread:>7.1f} {layer.sqnr:>6.1f} {layer.lost:>6.1f}"
            f"{'  <- worst' if layer.index in marked else ''}"
        )
    lines += [
        "",
        "SQNR: dB, of the activation against float. lost: dB against the layer's best input.",
        "spread: widest channel over the median one.",
        "",
        "worst: " + "; ".join(short(layer) for layer in worst(layers, count)),
    ]
    return "\n".join(lines)


def short(layer: Layer) -> str:
    """One layer in a few words."""
    return f"{layer.index} {layer.operator} ({layer.sqnr:.1f} dB, {layer.lost:.1f} dB lost)"


def write(folder: Path, layers: Sequence[Layer], name: str, *, overwrite: bool) -> list[Path]:
    """Table, JSON and plot. Raises OutputExists."""
    refuse_existing(folder / "layers.json", overwrite)
    return [
        write_json(folder / "layers.json", [_finite(asdict(layer)) for layer in layers]),
        write_text(folder / "layers.txt", f"{table(layers)}\n"),
        *_plot(folder / "layers", layers, name),
    ]


def _plot(stem: Path, layers: Sequence[Layer], name: str) -> list[Path]:
    marked = {layer.index for layer in worst(layers)}
    places = np.arange(len(layers))
    top = max((layer.sqnr for layer in layers if math.isfinite(layer.sqnr)), default=EXACT)
    lengths = [min(layer.sqnr, top) for layer in layers]
    with plots.figure(8, 0.2 * len(layers) + 1.4) as (page, axes):
        axes.grid(axis="y", visible=False)
        axes.barh(places, lengths, color=[plots.COLOURS[x.index in marked] for x in layers])
        for place, length, layer in zip(places, lengths, layers, strict=True):
            axes.text(
                length + 0.3,
                place,
                f"{layer.low:.3g} .. {layer.high:.3g}"
                + (f", {layer.lost:.1f} dB lost here" if layer.index in marked else ""),
                va="center",
                fontsize=7,
            )
        axes.set_yticks(places, [f"{x.index} {x.operator}" for x in layers], fontsize=7)
        axes.invert_yaxis()
        axes.margins(y=0.01)
        axes.set(
            xlim=(0, top + 14),
            xlabel="SQNR against float, dB; the float range is next to each bar",
            title=f"{name}: what int8 leaves of each activation",
        )
        return plots.save(page, stem)


def _holds(tensor: Any) -> tuple[float, float]:
    scale, zero = tensor.scales[0], tensor.zero_points[0]
    limits = np.iinfo(np.int8) if tensor.kind == "INT8" else np.iinfo(np.int32)
    return (int(limits.min) - zero) * scale, (int(limits.max) - zero) * scale


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }
