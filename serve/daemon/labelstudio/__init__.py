"""Label Studio: its ML-backend protocol, its webhook, its tasks and its exports.

Verified with the sources and the traffic of label-studio 1.23.2. What a user must set there:

- Uncertainty sampling serves the lowest score first, but only among predictions of the version
  that the project names (``model_version``). Tasks imported with predictions set that version; a
  connected backend sets its *title*, and tasks are then served at random. So import first, or
  choose the version of the predictions in the project's settings.
- Label Studio refuses a backend at a private or loopback address until ``ML_BLOCK_LOCAL_IP=false``,
  and a webhook until ``SSRF_PROTECTION_ENABLED=false`` or other banned networks are set.
- Calls of the backend carry HTTP Basic when a user and a password are set. The webhook that Label
  Studio creates for the backend carries only headers that the user adds to it.
- Its COCO and VOC exports do not name the pool's image: :mod:`.coco_export` converts the JSON
  export instead.
- The webhook is sent once, with a timeout of one second; lost events are in the export.
"""
