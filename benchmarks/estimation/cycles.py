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
LONG = 20_000_000
"""Instructions from which a section is sampled instead."""
_SAMPLES, _STRETCH = 160, 600
"""Stretches of a long section that are simulated, and the instructions of each."""


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
    simulated rather than extrapolated, small for a sampled section. kernels: cycles by kind of
    kernel, the largest first. macs: multiply-accumulates by kind of kernel, those on padding
    included.
    """

    instructions: int
    cycles: float
    simulated: float
    kernels: Mapping[str, float]
    macs: Mapping[str, float]


def read_blocks(path: Path) -> Blocks:
    """The blocks that ``trace.c`` wrote.

    Blocks translated after the last section may end within a line: the emulator exits without
    writing the rest of its buffer. No section runs them.
    """
    words, addresses = {}, {}
    whole, _, _ = path.read_text().rpartition("\n")
    for line in whole.splitlines():
        number, address, *code = (int(part, 16) for part in line.split())
        words[number], addresses[number] = tuple(code), address
    return Blocks(words, addresses)


def read_sections(path: Path) -> list[NDArray[np.uint32]]:
    """The block identities of each recorded section, in the order they ran."""
    trace = np.fromfile(path, np.uint32)
    ends = np.flatnonzero(trace == 0).tolist()
    return [trace[first:end] for first, end in zip([0, *(n + 1 for n in ends)], ends, strict=False)]


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
    section: NDArray[np.uint32],
    blocks: Blocks,
    assembly: Mapping[int, str],
    cpu: str,
) -> Cost:
    """Cycles of a section on LLVM's model of a core (``cpu``: ``llvm-mca -mcpu``)."""
    size = np.zeros(max(blocks.words) + 1, np.int64)
    for number, code in blocks.words.items():
        size[number] = len(code)
    total = int(size[section].sum())
    parts = stretches(section, size) if total > LONG else windows(section, blocks)
    weight = [int(size[list(part.blocks)].sum()) * part.count for part in parts]
    order = sorted(range(len(parts)), key=lambda index: -weight[index])
    chosen, covered = [], 0
    for index in order:
        if total <= LONG and covered >= _COVER * total:
            break
        chosen.append(index)
        covered += weight[index]
    texts = [
        [assembly[word] for block in parts[index].blocks for word in blocks.words[block]]
        for index in chosen
    ]
    scale = total / covered if covered else 0.0
    kernels: defaultdict[str, float] = defaultdict(float)
    macs: defaultdict[str, float] = defaultdict(float)
    # A long stretch settles within one iteration.
    each = simulate(texts, cpu, (1, 2) if total > LONG else (2, 4))
    for index, text, taken in zip(chosen, texts, each, strict=True):
        kind = kernel(text)
        kernels[kind] += taken * parts[index].count * scale
        macs[kind] += sum(map(multiplications, text)) * parts[index].count * scale
    largest = dict(sorted(kernels.items(), key=lambda item: -item[1]))
    return Cost(
        total,
        sum(kernels.values()),
        covered / total,
        largest,
        {kind: macs[kind] for kind in largest},
    )


def total(costs: Sequence[Cost]) -> Cost:
    """The cost of sections together."""
    kernels: Counter[str] = Counter()
    macs: Counter[str] = Counter()
    for one in costs:
        kernels.update(one.kernels)
        macs.update(one.macs)
    instructions = sum(one.instructions for one in costs)
    return Cost(
        instructions,
        sum(one.cycles for one in costs),
        sum(one.simulated * one.instructions for one in costs) / instructions,
        dict(kernels.most_common()),
        {kind: macs[kind] for kind, _ in kernels.most_common()},
    )


def stretches(section: NDArray[np.uint32], size: NDArray[np.int64]) -> list[Window]:
    """Evenly spaced parts of a long section. size: instructions of each block, by identity."""
    ends = np.cumsum(size.astype(np.int16)[section], dtype=np.int64)
    # Integers, as the searched array has: of another type, it would be converted at every search.
    starts = np.linspace(0, ends[-1] - _STRETCH, _SAMPLES).astype(np.int64)
    firsts = np.searchsorted(ends, starts, "right").tolist()
    lasts = np.searchsorted(ends, starts + _STRETCH, "right").tolist()
    return [
        Window(tuple(section[first : last + 1].tolist()), 1)
        for first, last in zip(firsts, lasts, strict=True)
    ]


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


_LANES = {"8h": 8, "4s": 4, "2d": 2, "4h": 4, "2s": 2}


def multiplications(line: str) -> int:
    """Multiply-accumulates of an instruction on vectors."""
    found = re.match(r"(sdot|udot|smmla|smull2?|smlal2?|fmla|fmul)\s+v\d+\.(\w+)", line)
    if found is None:
        return 0
    name, lanes = found[1], _LANES.get(found[2], 0)
    return lanes * {"sdot": 4, "udot": 4, "smmla": 8}.get(name, 1)


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


def simulate(
    texts: Sequence[Sequence[str]], cpu: str, iterations: tuple[int, int] = (2, 4)
) -> list[float]:
    """Cycles of each window when it repeats: ``llvm-mca`` for more iterations less that for few."""
    keys = [(cpu, iterations, tuple(text)) for text in texts]
    new = list(dict.fromkeys(key for key in keys if key not in _simulated))
    if new:
        found = _simulate([text for _, _, text in new], cpu, iterations)
        _simulated.update(zip(new, found, strict=True))
    return [_simulated[key] for key in keys]


_simulated: dict[tuple[str, tuple[int, int], tuple[str, ...]], float] = {}
"""Cycles of the windows so far: a section and its operators have nearly all of them in common."""


def _simulate(texts: Sequence[Sequence[str]], cpu: str, iterations: tuple[int, int]) -> list[float]:
    # LLVM takes a "#" in the first line of its input for a line marker.
    source = "\n\n" + "".join(
        "\n".join([f"# LLVM-MCA-BEGIN w{index}", *text, f"# LLVM-MCA-END w{index}", ""])
        for index, text in enumerate(texts)
    )
    totals: list[dict[str, int]] = []
    for count in iterations:
        options = [
            "--mtriple=aarch64",
            f"--mcpu={cpu}",
            "--mattr=+all",
            f"--iterations={count}",
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
    return [(many[name] - few[name]) / (iterations[1] - iterations[0]) for name in names]


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
