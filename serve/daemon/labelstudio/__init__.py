"""Label Studio: its ML-backend protocol, its webhook, its tasks and its exports.

Found in the sources and on the wire of label-studio 1.23.2; what a user must set there:

- Uncertainty sampling serves the lowest score first, but only among predictions whose version is
  the one that the project names (``model_version``): of tasks imported with predictions it takes
  their version by itself, of a connected backend it takes the *title*, and then serves tasks at
  random. Hence: import first, or choose the version of the predictions in the project's settings.
- A backend or webhook at a private or loopback address is refused until
  ``ML_BLOCK_LOCAL_IP=false``, and for the webhook ``SSRF_PROTECTION_ENABLED=false`` or a list of
  banned networks of one's own.
- The backend's calls bear HTTP Basic, where user and password were given; the webhook that Label
  Studio makes for the backend bears only the headers that are added to it.
- Its COCO and VOC exports do not tell which image of the pool is which: :func:`.coco.coco_of`
  makes COCO of its JSON export.
- The webhook is sent once and waited for one second: what went lost is in the export.
"""
