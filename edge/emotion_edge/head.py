"""Estimates which way a head points from five landmarks.

It is the direction of the head, not of the gaze: the eyes can look elsewhere, and no landmark shows
where. A detector without landmarks (Haar) gives no estimate.
"""

from __future__ import annotations

import math

from emotion_edge.values import Point

FACING_DEG = 30.0
"""Largest yaw, either way, at which a face counts as facing the camera."""

_DEPTH = 0.29
"""How far the nose tip seems to be in front of the plane of eyes and mouth, in distances from the
eye line to the mouth line: the median over generated turns, ``python -m benchmarks faces``. Real
noses are longer; YuNet places the landmarks of a turned face as if it were turned less."""


def tilt(landmarks: tuple[Point, ...]) -> float:
    """Degrees by which the head leans in the image plane, positive clockwise as seen; 0: upright.

    landmarks: as in ``values.Box``. The line through the eyes, the one through the corners of the
    mouth and the one between both count alike, so that one badly placed point matters less.
    """
    right_eye, left_eye, _, right_mouth, left_mouth = landmarks
    across = left_eye[0] - right_eye[0] + left_mouth[0] - right_mouth[0]
    down = left_eye[1] - right_eye[1] + left_mouth[1] - right_mouth[1]
    # From the eyes to the mouth, turned by a right angle.
    across += (right_mouth[1] + left_mouth[1] - right_eye[1] - left_eye[1]) / 2
    down -= (right_mouth[0] + left_mouth[0] - right_eye[0] - left_eye[0]) / 2
    return math.degrees(math.atan2(down, across)) if across or down else 0.0


def yaw(landmarks: tuple[Point, ...]) -> float:
    """Degrees by which the head is turned; 0: towards the camera, positive: to the image's right.

    landmarks: as in ``values.Box``. The nose tip is in front of the plane of eyes and mouth, so a
    turn moves it sideways. The unit is the distance from the eyes to the mouth, which a turn leaves
    as it is. Clipped to -90..90.
    """
    right_eye, left_eye, nose, right_mouth, left_mouth = landmarks
    eyes = ((right_eye[0] + left_eye[0]) / 2, (right_eye[1] + left_eye[1]) / 2)
    mouth = ((right_mouth[0] + left_mouth[0]) / 2, (right_mouth[1] + left_mouth[1]) / 2)
    down = (mouth[0] - eyes[0], mouth[1] - eyes[1])
    square = down[0] ** 2 + down[1] ** 2
    if square == 0:
        return 0.0
    # The nose tip's distance from the line between eyes and mouth, in lengths of that line.
    aside = ((nose[0] - eyes[0]) * down[1] - (nose[1] - eyes[1]) * down[0]) / square
    return math.degrees(math.asin(max(-1.0, min(1.0, aside / _DEPTH))))


def is_facing(landmarks: tuple[Point, ...]) -> bool:
    """Whether the head points towards the camera, within ``FACING_DEG``."""
    return abs(yaw(landmarks)) <= FACING_DEG
