"""The daemon: scoring on request, pools scored in the background, and which K are next.

::

    server ─▶ gate ─▶ app ─▶ routes ─┬▶ models ─▶ batcher ─▶ Scorer        (scoring on request)
    (uvicorn) (caps,   (FastAPI)     ├▶ pools, jobs ─▶ score_pool ─▶ Parquet parts
              access)                ├▶ selections ─▶ lloss.selection
                                     └▶ catalog (SQLite)

Imports go from left to right; :class:`~.core.Daemon` holds what the routes share.
"""
