"""Routes are tested on the pools of the services' tests."""

from ..services.conftest import bench, catalog, pools, root

__all__ = ["bench", "catalog", "pools", "root"]
