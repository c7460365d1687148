"""Labeled images are made of the annotations of the parsers' tests."""

from ..annotations.conftest import as_json, coco_fixture, person, picture, voc_xml

__all__ = ["as_json", "coco_fixture", "person", "picture", "voc_xml"]
