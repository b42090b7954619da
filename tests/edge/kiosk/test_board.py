import os
import stat
from pathlib import Path

import pytest

from emotion_edge.kiosk.board import (
    Throttling,
    read_board,
    read_condition,
    read_temperature,
    read_throttling,
)

PI_5 = {
    "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "proc/cpuinfo": "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n\n"
    "processor\t: 1\nCPU part\t: 0xd0b\n\nModel\t: Raspberry Pi 5\n",
    "proc/meminfo": "MemTotal:        8256672 kB\nMemFree:  1 kB\n",
    "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n',
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "2400000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "61350\n",
    "sys/class/thermal/thermal_zone1/type": "rp1_adc\n",
    "sys/class/thermal/thermal_zone1/temp": "70000\n",
}


@pytest.fixture
def pi(tmp_path: Path) -> Path:
    for name, text in PI_5.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def vcgencmd(folder: Path, script: str) -> str:
    path = folder / "vcgencmd"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_pi_is_recognised(pi: Path) -> None:
    board = read_board(pi)
    assert board.name == "Raspberry Pi 5 Model B Rev 1.0"
    assert board.is_pi
    assert board.cpu == "Cortex-A76"
    assert board.memory_mb == 8455
    assert board.os == "Debian GNU/Linux 12 (bookworm)"
    assert 1 <= board.cores <= (os.cpu_count() or 1)


def test_its_condition(pi: Path) -> None:
    condition = read_condition(pi)
    assert (condition.governor, condition.clock_mhz) == ("ondemand", 2400)
    assert str(condition).startswith("2400 MHz, governor ondemand, 61.4 °C")


def test_the_processor_zone_wins_over_a_hotter_one(pi: Path) -> None:
    assert read_temperature(pi) == pytest.approx(61.35)


def test_without_a_processor_zone_the_hottest_counts(pi: Path) -> None:
    (pi / "sys/class/thermal/thermal_zone0/type").write_text("acpitz")
    assert read_temperature(pi) == 70.0


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    board, condition = read_board(tmp_path), read_condition(tmp_path)
    assert board.name == board.cpu == board.machine
    assert board.memory_mb is None
    assert (condition.clock_mhz, condition.temperature_c) == (None, None)


def test_throttle_bits_now_and_since_boot() -> None:
    state = Throttling(0x50005)  # the documentation's example of a bad power supply
    assert state.now == ("under-voltage", "throttled")
    assert state.since_boot == ("under-voltage", "throttled")
    assert Throttling(0x80000).now == ()
    assert Throttling(0x80000).since_boot == ("soft temperature limit",)


def test_vcgencmd_is_asked(tmp_path: Path) -> None:
    command = vcgencmd(tmp_path, 'test "$1" = get_throttled && echo throttled=0x20002')
    assert read_throttling(command) == Throttling(0x20002)


@pytest.mark.parametrize("script", ["exit 1", "echo VCHI initialization failed", "true"])
def test_a_vcgencmd_that_fails_says_nothing(tmp_path: Path, script: str) -> None:
    assert read_throttling(vcgencmd(tmp_path, script)) is None


def test_no_vcgencmd_says_nothing(tmp_path: Path) -> None:
    assert read_throttling(str(tmp_path / "absent")) is None
