"""The networks of ncnn's published benchmark, as ncnn describes them; weights are zeros.

ncnn publishes single-thread latencies, int8 among them, of the very boards that are estimated here.
XNNPACK's authors do not. The networks are written from their papers, in the way that ncnn's
converter fuses them: ReLU inside the convolution, and an int8 result where only int8 convolutions
read it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True)
class Graph:
    """Lines of an ncnn ``.param`` file. integer: with int8 convolutions."""

    integer: bool
    size: int
    lines: list[str] = field(default_factory=list)
    channels: dict[str, int] = field(default_factory=dict)

    def add(
        self, kind: str, inputs: Sequence[str], channels: int, words: str, outputs: int = 1
    ) -> str:
        """A layer; returns the name of its (first) output."""
        name = f"{kind.lower()}{len(self.lines)}"
        names = [name] if outputs == 1 else [f"{name}_{n}" for n in range(outputs)]
        self.channels.update(dict.fromkeys(names, channels))
        blobs = " ".join([*inputs, *names])
        self.lines.append(f"{kind} {name} {len(inputs)} {outputs} {blobs} {words}".rstrip())
        return names[0]

    def input(self) -> str:
        """The image."""
        return self.add("Input", [], 3, f"0={self.size} 1={self.size} 2=3")

    def conv(
        self,
        x: str,
        out: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        pad: int | None = None,
        relu: bool = True,
        to_int8: bool = False,
        depthwise: bool = False,
    ) -> str:
        """A convolution. to_int8: only int8 convolutions read the result."""
        pad = kernel // 2 if pad is None else pad
        weights = kernel * kernel * out * (1 if depthwise else self.channels[x])
        words = f"0={out} 1={kernel} 3={stride} 4={pad} 5=1 6={weights}"
        if depthwise:
            words += f" 7={out}"
        if self.integer:
            words += f" 8={(100 if to_int8 else 0) + (1 if depthwise else 2)}"
        kind = "ConvolutionDepthWise" if depthwise else "Convolution"
        return self.add(kind, [x], out, words + (" 9=1" if relu else ""))

    def split(self, x: str, count: int = 2) -> list[str]:
        """The same blob for several readers."""
        first = self.add("Split", [x], self.channels[x], "", count)
        return [first[:-1] + str(n) for n in range(count)]

    def pool(self, x: str, words: str) -> str:
        """A pooling layer, its parameters as ncnn writes them."""
        return self.add("Pooling", [x], self.channels[x], words)

    def text(self, x: str) -> str:
        """The file, with a softmax of ``x`` as the blob ``output``."""
        lines = [*self.lines, f"Softmax prob 1 1 {x} output"]
        blobs = sum(int(line.split()[3]) for line in lines)
        return "\n".join(["7767517", f"{len(lines)} {blobs}", *lines, ""])


def mobilenet(integer: bool) -> str:
    """MobileNet v1 (Howard et al. 2017, arXiv:1704.04861, table 1)."""
    graph = Graph(integer, 224)
    x = graph.conv(graph.input(), 32, 3, 2, to_int8=True)
    last = (1024, 1)
    for out, stride in (
        (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
        *[(512, 1)] * 5, (1024, 2), last,
    ):  # fmt: skip
        x = graph.conv(x, graph.channels[x], 3, stride, to_int8=True, depthwise=True)
        x = graph.conv(x, out, to_int8=(out, stride) != last)
    x = graph.pool(x, "0=1 4=1")
    return graph.text(graph.conv(x, 1000, relu=False))


def squeezenet(integer: bool) -> str:
    """SqueezeNet 1.1 (Iandola et al. 2016, arXiv:1602.07360, and its authors' repository)."""
    graph = Graph(integer, 227)
    x = graph.pool(graph.conv(graph.input(), 64, 3, 2, pad=0), "1=3 2=2")
    for number, (squeeze, expand) in enumerate(
        ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
    ):
        if number in (2, 4):
            x = graph.pool(x, "1=3 2=2")
        left, right = graph.split(graph.conv(x, squeeze, to_int8=True))
        parts = [graph.conv(left, expand), graph.conv(right, expand, 3)]
        x = graph.add("Concat", parts, 2 * expand, "")
    return graph.text(graph.pool(graph.conv(x, 1000, pad=1), "0=1 4=1"))


def resnet18(integer: bool) -> str:
    """ResNet-18 (He et al. 2016, arXiv:1512.03385, table 1)."""
    graph = Graph(integer, 224)
    x = graph.pool(graph.conv(graph.input(), 64, 7, 2), "1=3 2=2")
    for out in (64, 128, 256, 512):
        for number in range(2):
            stride = 2 if out > 64 and number == 0 else 1
            short, y = graph.split(x)
            if number == 0:
                short = graph.conv(short, out, 1, stride, relu=False)
            y = graph.conv(graph.conv(y, out, 3, stride, to_int8=True), out, 3, relu=False)
            x = graph.add("Eltwise", [short, y], out, "0=1")
            x = graph.add("ReLU", [x], out, "")
    x = graph.pool(x, "0=1 4=1")
    return graph.text(graph.add("InnerProduct", [x], 1000, "0=1000 1=1 2=512000"))


NETWORKS: dict[str, Callable[[bool], str]] = {
    "mobilenet": mobilenet,
    "squeezenet": squeezenet,
    "resnet18": resnet18,
}


def write(name: str, variant: str, path: Path) -> None:
    """A network as an ncnn ``.param`` file; ``variant``: float32 or int8."""
    path.write_text(NETWORKS[name](variant == "int8"))
