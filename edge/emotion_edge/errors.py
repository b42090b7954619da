"""Every error this project raises on purpose.

::

    EmotionEdgeError
    ├── UsageError (ValueError)          a wrong flag, key or value
    ├── PluginError                      another package's camera, detector or sink is broken
    ├── MissingExtra (ImportError)       an optional dependency is not installed
    ├── ImageError (ValueError)          a file is not an image, or an array has the wrong shape
    ├── ModelError                       a model file cannot be used
    │   └── ManifestError (ValueError)   its manifest is absent, unknown or contradicts it
    ├── DetectorError                    a face detector's file is absent or wrong
    ├── CameraError                      a camera or a file cannot deliver frames
    │   ├── CameraNotFound               it does not exist
    │   ├── CameraBusy                   another program uses it
    │   └── CameraLost                   it delivered frames and stopped
    │       └── FrameTimeout             no frame in time; one may still come
    ├── SinkError                        an output cannot be written
    └── OutputExists (FileExistsError)   an output would replace a file

Each message is one line that says what was wrong, what was received and what to do.
The command line prints that line on standard error and exits with ``exit_code``;
it shows the traceback only with ``--debug``.
"""

from __future__ import annotations


class EmotionEdgeError(Exception):
    """Base of every error raised on purpose."""

    exit_code = 2


class UsageError(EmotionEdgeError, ValueError):
    """A flag, a configuration key or an argument has a value that cannot be used."""


class PluginError(EmotionEdgeError):
    """A camera, detector or sink that another package offers cannot be used."""


class MissingExtra(EmotionEdgeError, ImportError):
    """An optional dependency is not installed; the message holds the pip command."""

    def __init__(self, feature: str, extra: str, module: str) -> None:
        super().__init__(
            f"{feature} needs the Python module {module}, which is not installed: "
            f"pip install 'emotion-edge[{extra}]'"
        )


class ImageError(EmotionEdgeError, ValueError):
    """A file is not an image, or an array is not an image of the expected shape."""


class ModelError(EmotionEdgeError):
    """A model file is corrupt or unreadable, or its shape differs from its manifest."""


class ManifestError(ModelError, ValueError):
    """A manifest is absent, has an unknown schema, or contradicts its model."""


class DetectorError(EmotionEdgeError):
    """A face detector's weights are absent or corrupt, or OpenCV refuses them."""


class CameraError(EmotionEdgeError):
    """A camera cannot deliver frames."""

    exit_code = 3


class CameraNotFound(CameraError):
    """There is no camera, file or address of that name."""


class CameraBusy(CameraError):
    """The camera exists and another program uses it."""


class CameraLost(CameraError):
    """The camera delivered frames and stopped."""


class FrameTimeout(CameraLost):
    """No frame came in the time given to ``read``; a later read may return one.

    remedy: what a user can do about it, the end of the message; empty if unknown.
    """

    def __init__(self, what: str, remedy: str = "") -> None:
        """what: the message without the remedy."""
        super().__init__(f"{what}: {remedy}" if remedy else what)
        self.remedy = remedy


class SinkError(EmotionEdgeError):
    """An output could not be opened or written."""

    exit_code = 4


class OutputExists(EmotionEdgeError, FileExistsError):
    """An output file exists already and ``--overwrite`` was not given."""

    def __init__(self, path: object) -> None:
        super().__init__(
            f"{path} exists already and was not changed: choose another name or add --overwrite"
        )
