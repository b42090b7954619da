"""From an instruction trace to cycles: llvm-mca over windows of the stream as it really ran.

A sum over isolated blocks overstates an out-of-order core, which overlaps the end of one block with
the start of the next. So the stream is cut only where a function returns (or after ``MOST``
instructions), each distinct window is simulated once, in repetition, and counted as often as it
ran.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotion_edge.errors import EmotionEdgeError

MOST = 2000
"""Instructions in a window at most."""
_RETURN = 0xD65F0000  # RET Xn, the register in bits 5 to 9
_RETURN_MASK = 0xFFFFFC1F
_COVER = 0.995
"""Share of the instructions that is simulated; the rest gets the average."""
_SIMULATED = 400_000
"""Instructions in distinct windows that are simulated in full; of the others a sample is."""
_SAMPLES = 120
"""Windows of that sample."""


class EstimateError(EmotionEdgeError):
    """An estimate that cannot be made: a tool is missing or refuses."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """The translated blocks of a run, by identity.

    words: machine code, one uint32 per instruction. addresses: of the first instruction.
    """

    words: Mapping[int, tuple[int, ...]]
    addresses: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of the stream. blocks: their identities in order. count: how often it ran."""

    blocks: tuple[int, ...]
    count: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What a section costs a core with perfect caches and branch prediction.

    instructions: that ran. cycles: by llvm-mca. simulated: share of the instructions that were
    simulated rather than extrapolated. kernels: cycles by kind of kernel, the largest first.
    """

    instructions: int
    cycles: float
    simulated: float
    kernels: Mapping[str, float]


def read_blocks(path: Path) -> Blocks:
    """The blocks that ``trace.c`` wrote."""
    words, addresses = {}, {}
    for line in path.read_text().splitlines():
        number, address, *code = (int(part, 16) for part in line.split())
        words[number], addresses[number] = tuple(code), address
    return Blocks(words, addresses)


def read_sections(path: Path) -> list[NDArray[np.uint32]]:
    """The block identities of each recorded section, in the order they ran."""
    trace = np.fromfile(path, np.uint32)
    ends = np.flatnonzero(trace == 0)
    return [part[part != 0] for part in np.split(trace, ends + 1)[: len(ends)]]


def windows(section: NDArray[np.uint32], blocks: Blocks) -> list[Window]:
    """Distinct windows of a section, cut at returns and after ``MOST`` instructions."""
    size = np.zeros(max(blocks.words) + 1, np.int64)
    leaves = np.zeros(len(size), bool)
    for number, code in blocks.words.items():
        size[number] = len(code)
        leaves[number] = bool(code) and (code[-1] & _RETURN_MASK) == _RETURN
    starts = [0, *(np.flatnonzero(leaves[section]) + 1)]
    lengths = np.concatenate([[0], np.cumsum(size[section])])
    found: Counter[bytes] = Counter()
    for first, last in zip(starts, [*starts[1:], len(section)], strict=True):
        while first < last:
            end = int(np.searchsorted(lengths, lengths[first] + MOST, "right")) - 1
            end = min(max(end, first + 1), last)
            found[section[first:end].tobytes()] += 1
            first = end
    return [
        Window(tuple(np.frombuffer(key, np.uint32).tolist()), count) for key, count in found.items()
    ]


def cost(
    section: NDArray[np.uint32], blocks: Blocks, assembly: Mapping[int, str], cpu: str
) -> Cost:
    """Cycles of a section on LLVM's model of a core (``cpu``: ``llvm-mca -mcpu``)."""
    parts = windows(section, blocks)
    lengths = [sum(len(blocks.words[block]) for block in part.blocks) for part in parts]
    weight = [length * part.count for length, part in zip(lengths, parts, strict=True)]
    total = sum(weight)
    order = sorted(range(len(parts)), key=lambda index: -weight[index])
    chosen, covered, spent = [], 0, 0
    for index in order:
        if covered >= _COVER * total or spent >= _SIMULATED:
            break
        chosen.append(index)
        covered += weight[index]
        spent += lengths[index]
    # How often a window counts: one that is left out is represented by those of the sample.
    times = {index: float(parts[index].count) for index in chosen}
    if covered < _COVER * total:
        rest = order[len(chosen) :]
        drawn = _sample([weight[index] for index in rest], _SAMPLES)
        each = (total - covered) / sum(drawn.values())
        for number, count in drawn.items():
            times[rest[number]] = each * count / lengths[rest[number]]
        covered = total
    texts = [
        [assembly[word] for block in parts[index].blocks for word in blocks.words[block]]
        for index in times
    ]
    kernels: defaultdict[str, float] = defaultdict(float)
    cycles = 0.0
    for text, taken, count in zip(texts, simulate(texts, cpu), times.values(), strict=True):
        cycles += taken * count
        kernels[kernel(text)] += taken * count
    scale = total / covered if covered else 0.0
    largest = sorted(kernels.items(), key=lambda item: -item[1])
    return Cost(total, cycles * scale, covered / total, dict(largest))


def _sample(weights: Sequence[int], count: int) -> Counter[int]:
    """Positions drawn in proportion to their weight, evenly spaced; how often each was drawn."""
    ends = np.cumsum(weights)
    points = (np.arange(count) + 0.5) * ends[-1] / count
    return Counter(np.searchsorted(ends, points, "right").tolist())


def kernel(text: Sequence[str]) -> str:
    """What kind of microkernel a window runs, by its multiplications."""
    kinds = Counter(line.split(None, 1)[0] for line in text)
    lanes = any(re.match(r"(smlal2?|sdot|fmla)\b.*\[\d+\]", line) for line in text)
    by_lane = ", by lane" if lanes else ""
    least = max(4, len(text) // 50)
    for names, label in (
        (("sdot", "udot"), "dot product"),
        (("smmla",), "matrix product"),
        (("smull", "smull2", "smlal", "smlal2"), "widening multiply-add"),
        (("fmla",), "float multiply-add"),
    ):
        if sum(kinds[name] for name in names) >= least:
            prefetch = ", prefetch" if kinds["prfm"] else ""
            pairwise = ", pairwise" if kinds["sadalp"] else ""
            return f"{label}{by_lane}{pairwise}{prefetch}"
    return "other"


def disassemble(words: Iterable[int]) -> dict[int, str]:
    """Assembly text of machine words, as llvm-mca reads it; ``nop`` for what LLVM cannot decode."""
    every = sorted(set(words))
    lines = "\n".join(" ".join(f"0x{b:02x}" for b in word.to_bytes(4, "little")) for word in every)
    done = _llvm(
        "llvm-mc", ["--disassemble", "--triple=aarch64", "--mattr=+all", "--show-encoding"], lines
    )
    found = dict.fromkeys(every, "nop")
    for line in done.splitlines():
        text, mark, encoding = line.partition("// encoding: [")
        if mark:
            code = bytes(int(byte, 16) for byte in encoding.rstrip("]").split(","))
            found[int.from_bytes(code, "little")] = text.strip().replace("\t", " ")
    return found


def simulate(texts: Sequence[Sequence[str]], cpu: str) -> list[float]:
    """Cycles of each window when it repeats: ``llvm-mca`` for four less that for two."""
    # LLVM takes a "#" in the first line of its input for a line marker.
    source = "\n\n" + "".join(
        "\n".join([f"# LLVM-MCA-BEGIN w{index}", *text, f"# LLVM-MCA-END w{index}", ""])
        for index, text in enumerate(texts)
    )
    totals: list[dict[str, int]] = []
    for iterations in (2, 4):
        options = [
            "--mtriple=aarch64",
            f"--mcpu={cpu}",
            "--mattr=+all",
            f"--iterations={iterations}",
            "--json",
            "--skip-unsupported-instructions=any",
            "--instruction-info=false",
            "--resource-pressure=false",
        ]
        regions = json.loads(_llvm("llvm-mca", options, source))["CodeRegions"]
        totals.append({each["Name"]: each["SummaryView"]["TotalCycles"] for each in regions})
    few, many = totals
    names = [f"w{index}" for index in range(len(texts))]
    missing = [name for name in names if name not in few]
    if missing:
        raise EstimateError(f"llvm-mca left out {len(missing)} of {len(names)} windows")
    return [(many[name] - few[name]) / 2 for name in names]


def _llvm(program: str, options: Sequence[str], text: str) -> str:
    try:
        done = subprocess.run(
            [f"{program}-19", *options], input=text, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise EstimateError(f"{program}-19 is missing: make estimate-tools") from None
    if done.returncode:
        raise EstimateError(f"{program}-19: {(done.stderr.strip().splitlines() or ['failed'])[0]}")
    return done.stdout
