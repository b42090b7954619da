"""Labels an archive of images: many processes or a cluster, and a run that can be continued.

``recipe`` labels images, in whichever process; ``job`` is the folder in which a run keeps its list
of images and its finished chunks; ``local`` and ``cluster`` are what processes the chunks; ``run``
connects them; ``output`` joins the chunks to one file.
"""
