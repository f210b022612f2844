"""The picture of latency against load."""

from xml.etree import ElementTree

from penstock.bench.load import LoadResult
from penstock.bench.plot import latency_plot
from penstock.bench.timing import summary
from tests.bench.timings import timing

SVG = "{http://www.w3.org/2000/svg}"


def result(clients: int | None = None, rate: float | None = None, **how) -> LoadResult:
    timings = [timing(0.1 * (clients or 1), (0.02,) * 5, **how)]
    return LoadResult(clients=clients, rate=rate, summary=summary(timings, [2]), requests=timings)


def drawn(*results: LoadResult, title: str = "a model") -> ElementTree.Element:
    return ElementTree.fromstring(latency_plot(results, title))


def texts(svg: ElementTree.Element) -> list[str]:
    return [each.text or "" for each in svg.iter(f"{SVG}text")]


def test_three_panels_with_three_lines_each_have_names_units_and_ticks():
    svg = drawn(result(1), result(4), result(16))
    assert len(list(svg.iter(f"{SVG}polyline"))) == 9
    assert len(list(svg.iter(f"{SVG}circle"))) == 27
    written = texts(svg)
    assert "Time to first token (s)" in written and "Time between tokens (ms)" in written
    assert written.count("clients") == 3
    assert written.count("16") >= 3 and written.count("p99") == 3


def test_higher_is_slower_and_further_right_is_more_load():
    svg = drawn(result(4), result(1))
    line = next(svg.iter(f"{SVG}polyline")).attrib["points"].split()
    (x1, y1), (x4, y4) = (map(float, point.split(",")) for point in line)
    assert x1 < x4 and y1 > y4


def test_a_single_load_is_drawn_too():
    assert "requests per second" in texts(drawn(result(rate=0.5)))


def test_a_load_without_answers_leaves_a_gap():
    svg = drawn(result(1), result(2, outcome="status 429"), result(4))
    assert len(list(svg.iter(f"{SVG}circle"))) == 18
    nothing = drawn(result(1, outcome="status 429"))
    assert not list(nothing.iter(f"{SVG}circle"))


def test_labels_that_would_overlap_are_left_out():
    written = texts(drawn(*(result(clients) for clients in (1, 31, 32))))
    assert written.count("31") == 3 and written.count("32") == 0


def test_a_title_from_elsewhere_cannot_break_the_document():
    assert "<a> & 'b'" in texts(drawn(result(1), title="<a> & 'b'"))
