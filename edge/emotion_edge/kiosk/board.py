"""Reads the board's model, temperature, clock and throttle state.

A latency means little without them, and a kiosk must slow down when it gets hot. Everything comes
from Linux's own files; ``vcgencmd`` adds the Raspberry Pi's throttle bits. What a machine does not
report is None.
"""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

THROTTLE_BITS = (
    # https://www.raspberrypi.com/documentation/computers/os.html#get_throttled
    (0, "under-voltage"),
    (1, "frequency capped"),
    (2, "throttled"),
    (3, "soft temperature limit"),
)
_SINCE_BOOT = 16  # the same four, sixteen bits up: "has happened since boot"

_ARM_PARTS = {
    # "CPU part" of implementer 0x41 (Arm) in /proc/cpuinfo
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd40": "Neoverse-V1",
    "0xd49": "Neoverse-N2",
    "0xd4f": "Neoverse-V2",
}


@dataclass(frozen=True, slots=True)
class Board:
    """What does not change while it runs.

    name: the maker's, e.g. ``Raspberry Pi 5 Model B Rev 1.0``; else the architecture.
    machine: ``aarch64``, ``x86_64``. cores: those this process may use.
    memory_mb: RAM in MB (10^6 bytes).
    os: distribution and release. kernel: its release. python: its version.
    """

    name: str
    cpu: str
    machine: str
    cores: int
    memory_mb: int | None
    os: str
    kernel: str
    python: str

    @property
    def is_pi(self) -> bool:
        """Whether it is a Raspberry Pi."""
        return "Raspberry Pi" in self.name

    def __str__(self) -> str:
        return f"{self.name}, {self.cores} x {self.cpu}, {self.os}, Linux {self.kernel}"


@dataclass(frozen=True, slots=True)
class Throttling:
    """The Raspberry Pi firmware's throttle bits."""

    bits: int

    @property
    def now(self) -> tuple[str, ...]:
        """What holds the board back at this moment."""
        return tuple(name for bit, name in THROTTLE_BITS if self.bits >> bit & 1)

    @property
    def since_boot(self) -> tuple[str, ...]:
        """What has held it back at any time since it was switched on."""
        return tuple(name for bit, name in THROTTLE_BITS if self.bits >> bit + _SINCE_BOOT & 1)


@dataclass(frozen=True, slots=True)
class Condition:
    """The state of the board at one moment.

    governor: of cpu0's clock. clock_mhz: of cpu0. temperature_c: of the processor.
    throttling: None where no ``vcgencmd`` answers.
    """

    governor: str | None
    clock_mhz: float | None
    temperature_c: float | None
    throttling: Throttling | None

    def __str__(self) -> str:
        parts = []
        if self.clock_mhz is not None:
            parts.append(f"{self.clock_mhz:.0f} MHz")
        if self.governor is not None:
            parts.append(f"governor {self.governor}")
        if self.temperature_c is not None:
            parts.append(f"{self.temperature_c:.1f} °C")
        if self.throttling is not None:
            parts.append(", ".join(self.throttling.now) or "not throttled")
        return ", ".join(parts) or "the board reports neither clock nor temperature"


def read_board(root: Path = Path("/")) -> Board:
    """Describe this machine. root: where its file system lies, for tests."""
    fields = _cpuinfo(root)
    machine = platform.machine()
    name = (
        _text(root / "proc/device-tree/model")
        or _text(root / "sys/class/dmi/id/product_name")
        or machine
    )
    part = _ARM_PARTS.get(fields.get("CPU part", ""), "")
    cpu = fields.get("model name") or part or fields.get("CPU part") or machine
    release = _os_release(root)
    return Board(
        name=name,
        cpu=cpu,
        machine=machine,
        cores=len(os.sched_getaffinity(0)),
        memory_mb=_memory_mb(root),
        os=release.get("PRETTY_NAME", platform.system()),
        kernel=platform.release(),
        python=platform.python_version(),
    )


def read_condition(root: Path = Path("/")) -> Condition:
    """Clock, temperature and throttle state now; a few file reads and one short process."""
    clock = root / "sys/devices/system/cpu/cpu0/cpufreq"
    kilohertz = _number(clock / "scaling_cur_freq")
    megahertz = _cpuinfo(root).get("cpu MHz")
    return Condition(
        governor=_text(clock / "scaling_governor") or None,
        clock_mhz=kilohertz / 1000 if kilohertz else float(megahertz) if megahertz else None,
        temperature_c=read_temperature(root),
        throttling=read_throttling(),
    )


def read_temperature(root: Path = Path("/")) -> float | None:
    """Degrees Celsius of the processor, or None.

    The thermal zone whose type names the processor; failing that, the hottest zone.
    """
    zones = []
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        millidegrees = _number(zone / "temp")
        if millidegrees is not None:
            kind = _text(zone / "type").lower()
            of_processor = "cpu" in kind or "pkg" in kind or "soc" in kind
            zones.append((of_processor, millidegrees / 1000))
    return max(zones)[1] if zones else None


def read_throttling(command: str = "vcgencmd") -> Throttling | None:
    """The firmware's throttle bits, or None where they cannot be read."""
    try:
        answer = subprocess.run(
            [command, "get_throttled"], capture_output=True, text=True, timeout=2, check=True
        ).stdout
        return Throttling(int(answer.strip().removeprefix("throttled="), 16))
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def _text(path: Path) -> str:
    """A small file's text without the device tree's closing NUL; empty when unreadable."""
    try:
        return path.read_text(errors="replace").strip("\0\n ")
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(_text(path))
    except ValueError:
        return None


def _cpuinfo(root: Path) -> dict[str, str]:
    """The first processor's fields."""
    fields: dict[str, str] = {}
    for line in _text(root / "proc/cpuinfo").splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    return fields


def _os_release(root: Path) -> dict[str, str]:
    lines = _text(root / "etc/os-release").splitlines()
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {key: value.strip('"') for key, _, value in pairs}


def _memory_mb(root: Path) -> int | None:
    for line in _text(root / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return round(int(line.split()[1]) * 1024 / 1e6)
    return None
