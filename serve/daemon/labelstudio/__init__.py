"""Label Studio: tasks to import, its webhook and its JSON export.

Verified with the sources and the traffic of label-studio 1.23.2. What a user must know there:

- Uncertainty sampling serves the lowest score first, but only among predictions of the version
  that the project names (``model_version``): that of the first tasks imported with predictions.
- It refuses a webhook at a private or loopback address until other banned networks are set.
- It sends an event once, with a timeout of one second; lost events are in the export.
- Its COCO and VOC exports do not name the pool's image: :mod:`.coco_export` converts the JSON
  export instead.
"""
