"""The API for scripts, its OpenAPI document, and the records it returns.

``GET /api/openapi.json`` describes every path, status and field; tests hold the responses to it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from importlib import resources
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from emotion_edge import records
from emotion_edge.errors import EmotionEdgeError, ImageError, MissingExtra, UsageError
from emotion_edge.values import Face, Observation
from emotion_edge.version import __version__
from emotion_edge.web.images import READABLE, DecodedImage, Limits, TooManyBytes, decode_image
from emotion_edge.web.memory import give_back
from emotion_edge.web.models import Installed, Models

try:
    from fastapi import FastAPI, HTTPException, Query, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse
    from pydantic import BaseModel, Field
    from starlette.datastructures import UploadFile
    from starlette.exceptions import HTTPException as StarletteHTTPException
    from starlette.formparsers import MultiPartException, MultiPartParser
except ImportError as error:
    raise MissingExtra("the web page", "web", error.name or "fastapi") from error

_T = TypeVar("_T")

FORM_OVERHEAD = 65_536
"""Bytes by which a form may exceed the file in it."""


class ModelAnswer(BaseModel):
    """An installed model."""

    name: str
    bytes: int = Field(ge=1)
    labels: list[str]
    convention: str | None = Field(
        description="`people`: the label most people would give. `fer2013`: FER2013's original "
        "labels. Null where the model does not state it."
    )
    unsure_below: float = Field(
        ge=0, le=1, description="A face whose greatest probability is lower is `unsure`; 0: none."
    )
    accuracy: dict[str, Any] = Field(description="As its manifest states it, for each data split.")


class Error(BaseModel):
    """What went wrong and what to do."""

    error: str


EXAMPLE: dict[str, Any] = {
    "schema": 1,
    "type": "image",
    "model": "fast int8",
    "notes": [],
    "timings_ms": {"detect": 21.5, "classify": 0.4},
    "width": 512,
    "height": 600,
    "faces": [
        {
            "box": [150, 104, 227, 227],
            "score": 57.177,
            "label": "neutral",
            "confidence": 0.8008,
            "probabilities": {
                "angry": 0.0703, "disgust": 0.0, "fear": 0.0273, "happy": 0.0039, "sad": 0.0938,
                "surprise": 0.0039, "neutral": 0.8008,
            },
        }
    ],
}  # fmt: skip
"""A response to a portrait, found with Haar."""

_REASONS = {
    401: "No password, or a wrong one (HTTP Basic, any user name).",
    403: "The request comes from a page of another site.",
    404: "No model of that name.",
    405: "The path takes another method.",
    413: "More bytes than the limit.",
    421: "The Host header carries an unknown name.",
    422: "The file is not an image, is damaged or has too many pixels; or a parameter is wrong.",
    429: "Too many wrong passwords; see `Retry-After`.",
    503: "Too many images are being processed; see `Retry-After`.",
}
_ANSWER: dict[str, Any] = {
    "description": "The faces, from left to right. No face is an empty list, not an error.",
    "content": {
        "application/json": {
            "schema": {"$ref": "#/components/schemas/image"},
            "example": EXAMPLE,
        }
    },
}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Error, "description": why} for status, why in _REASONS.items()
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "requestBody": {
        "required": True,
        "description": f"A {READABLE} file: as the body itself, or as a file field of a form.",
        "content": {
            "image/*": _BINARY,
            "application/octet-stream": _BINARY,
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": _BINARY["schema"]},
                    "required": ["file"],
                }
            },
        },
    }
}
_STATUS: dict[type[EmotionEdgeError], int] = {TooManyBytes: 413, ImageError: 422, UsageError: 404}


_ANSWERED_S = 0.5  # seconds after which a request and its body are gone


class Work:
    """Answers requests for images, one at a time, in a thread.

    Only one image is decoded at any moment, because a large one takes tens of megabytes. It exists
    only in the frames of its request: nothing here keeps a reference, and freed memory is
    returned to the system.
    """

    def __init__(self, limits: Limits) -> None:
        """Accept images within the limits."""
        self.limits = limits
        self._limiter: anyio.CapacityLimiter | None = None

    async def on(self, request: Request, answer: Callable[[bytes], _T]) -> _T:
        """Read the request's image and return what ``answer`` makes of its bytes.

        Raises ImageError for a form without a file, and what ``answer`` raises.
        """
        # A limiter belongs to a running event loop; none runs when the server is built.
        self._limiter = self._limiter or anyio.CapacityLimiter(1)
        data = await _image_bytes(request, self.limits)
        try:
            return await anyio.to_thread.run_sync(answer, data, limiter=self._limiter)
        finally:
            # The request holds its body until it has been answered.
            asyncio.get_running_loop().call_later(_ANSWERED_S, give_back)


async def _image_bytes(request: Request, limits: Limits) -> bytes:
    """The image file in a request: its body, or the first file of a form."""
    kind = request.headers.get("content-type", "")
    if not kind.lower().startswith("multipart/form-data"):
        return await request.body()
    try:
        parser = MultiPartParser(request.headers, request.stream(), max_files=1, max_fields=10)
        parser.spool_max_size = limits.bytes + FORM_OVERHEAD  # never into a temporary file
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:
        raise ImageError(f"the form cannot be read ({error}): {_FORM_HINT}") from error
    try:
        for _, value in form.multi_items():
            if isinstance(value, UploadFile):
                return await value.read()
    finally:
        await form.close()
    raise ImageError(f"the form contains no file: {_FORM_HINT}")


_FORM_HINT = "send one file, with curl: -F file=@photo.jpg"


def create_api(models: Models, work: Work) -> FastAPI:
    """The application with the API's paths; the page is mounted into it."""
    app = FastAPI(
        title="emotion-edge",
        version=__version__,
        description="Names the facial expression of each face in an image. Images are held in "
        "memory while a request is answered, and are not stored.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )

    @app.get(
        "/api/models",
        summary="The installed models, the default first",
        response_model=list[ModelAnswer],
        responses={n: _ERRORS[n] for n in (401, 403, 405, 421, 429)},
    )
    def installed() -> list[dict[str, Any]]:
        return [model_record(one) for one in models.installed]

    @app.post(
        "/api/faces",
        summary="The faces in an image",
        responses={200: _ANSWER, **_ERRORS},
        openapi_extra=_BODY,
    )
    async def faces(
        request: Request,
        model: str | None = Query(
            None, description="A name from `/api/models`, also without its variant: `fast`."
        ),
        whole: bool = Query(
            False, description="Treat the whole image as one face; for images of a face only."
        ),
    ) -> JSONResponse:
        record = await work.on(
            request, lambda data: image_answer(models, data, work.limits, model, whole=whole)
        )
        return JSONResponse(record, headers={"cache-control": "no-store"})

    describe = app.openapi

    def document() -> dict[str, Any]:
        """FastAPI's document with the published schema of records added."""
        described = describe()
        described["components"]["schemas"].update(_record_schemas())
        return described

    app.openapi = document  # type: ignore[method-assign]

    @app.exception_handler(EmotionEdgeError)
    async def failed(request: Request, error: EmotionEdgeError) -> JSONResponse:
        status = next((n for kind, n in _STATUS.items() if isinstance(error, kind)), 500)
        message = str(error)
        form = "application/x-www-form-urlencoded"
        # curl's --data-binary sends the same header; only -d leaves no line break in the body.
        if (
            status == 422
            and request.headers.get("content-type") == form
            and not {10, 13} & set(await request.body())
        ):
            message += ". With curl use --data-binary @FILE, not -d: -d removes line breaks"
        return _error(status, message)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"][1:])
        return _error(422, f"parameter {name}: {first['msg']}, received {first.get('input')!r}")

    @app.exception_handler(StarletteHTTPException)
    async def refused(_: Request, error: HTTPException) -> JSONResponse:
        return _error(error.status_code, str(error.detail), dict(error.headers or {}))

    return app


def _record_schemas() -> dict[str, Any]:
    """The parts of the published schema of records that describe an image."""
    text = resources.files("emotion_edge").joinpath("records.schema.json").read_text("utf-8")
    parts: dict[str, Any] = json.loads(text.replace("#/$defs/", "#/components/schemas/"))["$defs"]
    return {name: parts[name] for name in ("image", "face", "timings", "pixels", "probability")}


def _error(status: int, why: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": why}, status, {"cache-control": "no-store", **(headers or {})})


def image_answer(
    models: Models, data: bytes, limits: Limits, model: str | None = None, *, whole: bool = False
) -> dict[str, Any]:
    """The response of ``POST /api/faces`` to a file's bytes.

    Raises ImageError for a file that is not an image or is too large, UsageError for an unknown
    model.
    """
    name = models.find(model).name
    decoded = decode_image(data, limits)
    return image_record(decoded, models.look(decoded.image, name, whole=whole), name)


def image_record(decoded: DecodedImage, observation: Observation, model: str) -> dict[str, Any]:
    """What an image showed, as JSON; boxes are in pixels of the original, upright."""
    timings = {
        k: round(v, 3) for k, v in observation.timings.items() if k in ("detect", "classify")
    }
    faces = [
        Face(decoded.to_original(face.box), face.emotion, face.label) for face in observation.faces
    ]
    return records.image_record(
        faces,
        decoded.width,
        decoded.height,
        model=model,
        notes=list(decoded.notes),
        timings_ms=timings,
    )


def model_record(one: Installed) -> dict[str, Any]:
    """An item of ``GET /api/models``."""
    return {
        "name": one.name,
        "bytes": one.size,
        "labels": list(one.manifest.labels),
        "convention": one.manifest.convention or None,
        "unsure_below": one.unsure_below,
        "accuracy": dict(one.manifest.accuracy),
    }
