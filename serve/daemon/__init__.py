"""The daemon: scoring on request, background scoring of pools, and which K images are next.

::

    http ─▶ app ─▶ api, ui, labelstudio ─┬▶ models ─▶ batcher ─▶ Scorer     (scoring on request)
    (uvicorn,      (routes)              ├▶ pools, jobs ─▶ score_pool ─▶ Parquet parts
     middleware)                         ├▶ selections ─▶ lloss.selection
                                         └▶ catalog (SQLite)

:class:`.daemon.Daemon` has what the routes share.
"""
