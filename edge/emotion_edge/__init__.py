"""Facial expression recognition for small devices.

>>> import emotion_edge                                     # doctest: +SKIP
>>> pipeline = emotion_edge.load()                          # the shipped model
>>> for face in pipeline.image("photo.jpg").faces:
...     print(face.label, face.emotion.confidence, face.box)

The same for a stream, where faces keep their identity and labels are steadied:

>>> pipeline = emotion_edge.load(track=True)                # doctest: +SKIP
>>> with emotion_edge.open_camera("auto") as camera:
...     for observation in pipeline.stream(camera):
...         print([(face.track_id, face.label) for face in observation.faces])
"""

from __future__ import annotations

from emotion_edge.cameras import Camera, open_camera
from emotion_edge.detectors import FaceDetector
from emotion_edge.errors import EmotionEdgeError
from emotion_edge.factory import load
from emotion_edge.model.backend import Backend
from emotion_edge.model.classifier import EmotionClassifier, TFLiteClassifier
from emotion_edge.model.labels import EMOTIONS
from emotion_edge.model.manifest import InputSpec, Manifest
from emotion_edge.model.preprocessing import crop_face, read_image
from emotion_edge.pipeline import Pipeline, Tracker
from emotion_edge.sinks import Sink
from emotion_edge.values import Box, Emotion, Event, Face, Frame, Observation
from emotion_edge.version import __version__

__all__ = [
    "EMOTIONS",
    "Backend",
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
    "__version__",
    "crop_face",
    "load",
    "open_camera",
    "read_image",
]
