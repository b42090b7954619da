import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emotion_edge.errors import UsageError
from emotion_edge.kiosk.board import Condition, Throttling
from emotion_edge.kiosk.thermal import BoardWatch, ThermalGovernor, ThermalSettings

SETTINGS = ThermalSettings(hot_c=78, cool_c=70, steps_fps=(10, 5, 2), settle_s=30)


def reading(celsius: float | None, bits: int = 0) -> Condition:
    return Condition(None, None, celsius, Throttling(bits))


def rates(governor: ThermalGovernor, temperatures: list[float], step_s: float = 30) -> list[float]:
    rates = []
    for i, celsius in enumerate(temperatures):
        governor.consider(reading(celsius), round(i * step_s * 1e9))
        rates.append(governor.max_fps or 0)
    return rates


def test_steps_down_and_up_again() -> None:
    governor = ThermalGovernor(SETTINGS)
    seen = rates(governor, [60, 79, 80, 81, 82, 75, 69, 69, 69, 69])
    assert seen == [0, 10, 5, 2, 2, 2, 5, 10, 0, 0]


def test_waits_until_a_step_shows() -> None:
    assert rates(ThermalGovernor(SETTINGS), [80] * 7, step_s=10) == [10, 10, 10, 5, 5, 5, 2]


def test_each_step_is_an_event() -> None:
    governor = ThermalGovernor(SETTINGS)
    slower = governor.consider(reading(80.0), 0)
    assert slower is not None
    assert (slower.kind, slower.details["max_fps"]) == ("thermal.slower", 10)
    assert slower.message == "80 °C: 10 frames per second"
    assert governor.consider(reading(75.0), 60 * 10**9) is None
    faster = governor.consider(reading(65.0), 60 * 10**9)
    assert faster is not None
    assert (faster.kind, faster.message) == ("thermal.faster", "65 °C: full frame rate")


def test_a_throttled_board_is_hot_whatever_the_reading() -> None:
    governor = ThermalGovernor(SETTINGS)
    event = governor.consider(reading(60.0, bits=0b100), 0)
    assert event is not None and event.kind == "thermal.slower"


def test_a_weak_supply_is_reported_once_and_slows_nothing() -> None:
    governor = ThermalGovernor(SETTINGS)
    kinds = [
        event.kind if (event := governor.consider(reading(50.0, bits), i)) else None
        for i, bits in enumerate([0, 1, 1, 0, 0])
    ]
    assert kinds == [None, "power.weak", None, "power.recovered", None]
    assert governor.max_fps is None


def test_a_board_that_tells_nothing_runs_at_full_speed() -> None:
    governor = ThermalGovernor(SETTINGS)
    assert governor.consider(Condition(None, None, None, None), 0) is None
    assert governor.max_fps is None


def test_no_steps_never_slow_down() -> None:
    governor = ThermalGovernor(ThermalSettings(steps_fps=()))
    assert governor.consider(reading(99.0), 0) is None


@given(st.lists(st.floats(20, 110), max_size=60))
def test_the_rate_is_always_one_of_the_steps(temperatures: list[float]) -> None:
    assert set(rates(ThermalGovernor(SETTINGS), temperatures)) <= {0, 10, 5, 2}


@pytest.mark.parametrize(
    "wrong",
    [{"hot_c": 60.0}, {"steps_fps": (5.0, 5.0)}, {"steps_fps": (-1.0,)}, {"check_s": 0.0}],
)
def test_settings_that_contradict_themselves(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        ThermalSettings(**wrong)


def test_the_watch_reads_in_its_own_thread() -> None:
    read = threading.Event()
    threads = []

    def sensor() -> Condition:
        threads.append(threading.current_thread().name)
        read.set()
        return reading(42.0)

    with BoardWatch(1000, sensor) as watch:
        assert read.wait(10)
        while watch.temperature() is None:
            pass
        taken = watch.take()
        assert taken is not None and taken.temperature_c == 42.0
        assert watch.take() is None
        assert watch.temperature() == 42.0
    assert threads == ["board"]
