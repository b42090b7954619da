"""Head direction from five landmarks."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emotion_edge.head import FACING_DEG, is_facing, tilt, yaw
from emotion_edge.values import Box, Point

FRONT = ((-30.0, -30.0), (30.0, -30.0), (0.0, 5.0), (-22.0, 30.0), (22.0, 30.0))


def rolled(points: tuple[Point, ...], degrees: float) -> tuple[Point, ...]:
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return tuple((x * cosine - y * sine, x * sine + y * cosine) for x, y in points)


def nose_at(x: float) -> tuple[Point, ...]:
    return (*FRONT[:2], (x, 5.0), *FRONT[3:])


@given(st.floats(-80, 80))
def test_tilt_is_the_angle_of_the_face_and_leaves_the_yaw(degrees: float) -> None:
    assert tilt(rolled(FRONT, degrees)) == pytest.approx(degrees, abs=1e-6)
    assert yaw(rolled(nose_at(15), degrees)) == pytest.approx(yaw(nose_at(15)), abs=1e-6)


def test_yaw_has_the_side_of_the_nose_and_grows_with_it() -> None:
    angles = [yaw(nose_at(x)) for x in (-90, -20, -10, 0, 10, 20, 90)]
    assert angles == sorted(angles)
    assert angles[3] == 0
    assert angles[1] == pytest.approx(-angles[5])
    assert (angles[0], angles[-1]) == (-90, 90)


def test_facing_ends_at_a_limit() -> None:
    assert is_facing(FRONT)
    turned = next(x for x in range(60) if yaw(nose_at(x)) > FACING_DEG)
    assert is_facing(nose_at(turned - 1)) and not is_facing(nose_at(turned))
    assert not is_facing(nose_at(-turned))


def test_points_in_one_place_are_no_error() -> None:
    nowhere = ((1.0, 1.0),) * 5
    assert tilt(nowhere) == yaw(nowhere) == 0


def test_a_box_of_a_part_is_placed_with_its_landmarks() -> None:
    box = Box(10, 20, 30, 40, 0.5, ((10.0, 20.0),))
    assert box.placed(2, 100, 200) == Box(120, 240, 60, 80, 0.5, ((120.0, 240.0),))
    assert box.placed((1, 3)) == Box(10, 60, 30, 120, 0.5, ((10.0, 60.0),))
