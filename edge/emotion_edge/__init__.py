"""Facial expression recognition for small devices.

>>> import emotion_edge                                     # doctest: +SKIP
>>> pipeline = emotion_edge.load()                          # the shipped model
>>> picture = emotion_edge.read_image("photo.jpg")
>>> for face in pipeline.image(picture).faces:
...     print(face.label, face.emotion.confidence, face.box)
"""

from __future__ import annotations

__version__ = "0.1.0"

from emotion_edge.cameras import Camera
from emotion_edge.classifier import EmotionClassifier, TFLiteClassifier
from emotion_edge.detectors import FaceDetector
from emotion_edge.errors import EmotionEdgeError
from emotion_edge.labels import EMOTIONS
from emotion_edge.manifest import InputSpec, Manifest
from emotion_edge.pipeline import Pipeline, Tracker
from emotion_edge.preprocessing import crop_face, read_image
from emotion_edge.sinks import Sink
from emotion_edge.values import Box, Emotion, Event, Face, Frame, Observation

__all__ = [
    "EMOTIONS",
    "Box",
    "Camera",
    "Emotion",
    "EmotionClassifier",
    "EmotionEdgeError",
    "Event",
    "Face",
    "FaceDetector",
    "Frame",
    "InputSpec",
    "Manifest",
    "Observation",
    "Pipeline",
    "Sink",
    "TFLiteClassifier",
    "Tracker",
    "crop_face",
    "read_image",
]
