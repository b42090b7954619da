"""The web page and its API: ``emotion-edge web``, extra ``[web]``.

One server, running the model that the device runs:

=========================  =====================================================================
``GET /``                  The page: image, live camera, comparison of models, model card, API.
``POST /api/faces``        An image in, its faces as JSON out: the file as the body
                           (``curl --data-binary @photo.jpg``) or in a form
                           (``curl -F file=@photo.jpg``). ``?model=NAME`` selects a model;
                           ``?whole=true`` treats the whole image as one face.
``GET /api/models``        The installed models: name, bytes, labels, accuracy.
``GET /api/openapi.json``  Every field, parameter and status of these paths.
``WS /api/live``           JPEG frames as binary messages, one ``emotion_edge.records``
                           observation for each frame processed. ``?model=NAME&other=NAME``.
=========================  =====================================================================

Boxes are in pixels of the image after its EXIF orientation is applied; an image without a face has
an empty list. Errors are ``{"error": "..."}`` with the status that ``api`` lists.

Images are held in memory while their request is answered. Nothing is written, and nothing is kept
after the response. The page loads nothing from any other host, and tells the browser not to
either.
"""
