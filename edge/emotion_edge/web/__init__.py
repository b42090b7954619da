"""The web page and its API: ``emotion-edge web``, extra ``[web]``.

One server, from the model that the device runs:

====================  ==========================================================================
``GET /``             The page: picture, live camera, comparison of models, model card, API.
``POST /api/faces``   A picture's file as the body (``curl --data-binary @photo.jpg``), its faces
                      as JSON. ``?model=NAME`` takes another model than the first.
``GET /api/models``   The installed models: name, bytes, labels, accuracy.
``WS /api/live``      JPEG frames as binary messages, an observation record of
                      ``emotion_edge.records`` for each that was looked at. ``?model=NAME``.
====================  ==========================================================================

An answer of ``POST /api/faces``::

    {"schema": 1, "type": "image", "model": "fast int8", "width": 1600, "height": 1200,
     "notes": [], "timings_ms": {"detect": 21.5, "classify": 0.4},
     "faces": [{"box": [x, y, width, height], "score": 0.93, "label": "happy",
                "confidence": 0.94, "probabilities": {"angry": 0.01, ...}}]}

Boxes are in pixels of the picture, turned upright by its EXIF orientation; no face is an empty
list. Errors are ``{"error": "..."}``: 401 password (HTTP Basic, any user), 404 no such model or
path, 413 too many bytes, 422 no readable picture.

Pictures live in memory until they are answered; nothing is written. The page asks no other host
for anything, and tells the browser not to either.
"""
