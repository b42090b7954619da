"""From tables and texts to checked values."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emotion_edge import settings
from emotion_edge.errors import UsageError
from emotion_edge.settings import REQUIRED, Settings, from_table, key, parse_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Bulb(Settings):
    watts: float = key(40.0, "power.", gt=0, le=100)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lamp(Settings):
    pin: int = key(REQUIRED, "number of the pin.", ge=0, le=27)
    name: str = key("lamp", "what it is called.", filled=True)
    mode: Literal["on", "off"] = key("off", "`on` or `off`.")
    steps: tuple[float, ...] = key((1.0, 2.0), "seconds.", ge=0, le=10)
    log: Path | None = key(None, "a file.")
    bulb: Bulb = key(Bulb(), "what shines.")

    def check(self) -> None:
        if self.mode == "on" and self.pin == 0:
            raise UsageError("mode is 'on' and pin is 0: use another pin")


def lamp(**table: Any) -> Lamp:
    return from_table(Lamp, table, where="lamp.toml")


def test_a_table_becomes_settings() -> None:
    made = lamp(pin=3, steps=[1, 2.5], log="a.txt", bulb={"watts": 5})
    assert made == Lamp(pin=3, steps=(1.0, 2.5), log=Path("a.txt"), bulb=Bulb(watts=5.0))
    assert isinstance(made.steps[0], float)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({}, "lamp.toml: pin is missing: give a whole number"),
        ({"pin": 28}, "lamp.toml: pin is 28: use 0 to 27"),
        ({"pin": 1.0}, "lamp.toml: pin is 1.0; expected a whole number"),
        ({"pin": True}, "lamp.toml: pin is True; expected a whole number"),
        ({"pin": 1, "steps": [1, "2"]}, "steps is [1, '2']; expected a list of numbers"),
        ({"pin": 1, "steps": [1, 11]}, "steps is [1, 11]: use 0 to 10"),
        ({"pin": 1, "steps": [float("nan")]}, "steps is [nan]: use 0 to 10"),
        ({"pin": 1, "name": " "}, "lamp.toml: name is empty: expected text"),
        ({"pin": 1, "mode": "dim"}, "mode is 'dim'; expected 'on' or 'off'"),
        ({"pin": 0, "mode": "on"}, "lamp.toml: mode is 'on' and pin is 0: use another pin"),
        ({"pin": 1, "bulb": 40}, "bulb is 40; write it as a table, [bulb]"),
        ({"pin": 1, "bulb": {"watts": 0}}, "bulb.watts is 0: use a number above 0, at most 100"),
        ({"pin": 1, "bulb": {"wats": 5}}, "unknown key bulb.wats; did you mean bulb.watts?"),
        ({"pin": 1, "nam": "x"}, "lamp.toml: unknown key nam; did you mean name?"),
    ],
)
def test_a_wrong_table_is_one_line(table: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        lamp(**table)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_made_in_python_are_checked_too() -> None:
    with pytest.raises(UsageError, match="watts is inf: use a number above 0, at most 100"):
        Bulb(watts=float("inf"))
    with pytest.raises(UsageError, match="watts is 'big'; expected a number"):
        Bulb(watts="big")  # type: ignore[arg-type]
    assert Lamp(pin=1, log="a.txt").log == Path("a.txt")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("hint", "text", "value"),
    [
        (str, "shop floor", "shop floor"),
        (str, '"shop floor"', "shop floor"),
        (str, "'shop floor'", "shop floor"),
        (str, '"', '"'),
        (str, "5", "5"),
        (str, "", ""),
        (Path, "'a b'", "a b"),
        (int, "0x10", 16),
        (int, "two", "two"),
        (float, "1e-3", 0.001),
        (bool | None, "true", True),
        (tuple[float, ...], "8,4", [8, 4]),
        (tuple[float, ...], "[8, 4]", [8, 4]),
        (tuple[float, ...], "", []),
        (int, "1\nother = 2", "1\nother = 2"),
    ],
)
def test_texts(hint: Any, text: str, value: Any) -> None:
    assert parse_text(hint, text) == value


@given(st.text())
def test_any_text_is_a_value_or_comes_back(text: str) -> None:
    parse_text(int, text)
    if not (text and text[0] in "\"'" and text[0] == text[-1]):
        assert parse_text(str, text) == text


def test_the_reference_has_every_key_and_its_help() -> None:
    rows = list(settings.reference(Lamp, "lamps.one"))
    assert ("lamps.one.pin", "required", "number of the pin.") in rows
    assert ("lamps.one.steps", "[1, 2]", "seconds.") in rows
    assert ("lamps.one.bulb.watts", "40", "power.") in rows
    assert [name for name, _, _ in rows] == list(settings.keys(Lamp, "lamps.one"))
