from __future__ import annotations

from xml.etree import ElementTree

from lloss.statistics.canvas import Canvas


def test_marks_become_svg_in_order_and_text_stays_text() -> None:
    canvas = Canvas(100, 50, 'says "<b>"')
    canvas.area([(0, 0), (1, 2), (3, 4)], "band c0")
    canvas.line([(0, 0), (10, 5)], "curve c0", "a & <b>")
    canvas.dots([(1, 1), (2, 2)], "dots c0")
    canvas.text((5, 6), "<script>", anchor="end")
    root = ElementTree.fromstring(canvas.svg())
    assert root.attrib["viewBox"] == "0 0 100 50"
    assert root.attrib["aria-label"] == 'says "<b>"'
    band, line, dots, text = root
    assert band.attrib == {"class": "band c0", "d": "M0.0 0.0L1.0 2.0L3.0 4.0Z"}
    assert line[0].text == "a & <b>"
    assert dots.attrib["d"] == "M1.0 1.0h0M2.0 2.0h0"
    assert (text.text, text.attrib["text-anchor"]) == ("<script>", "end")
