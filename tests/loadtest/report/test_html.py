"""The page as text: one file, whole, and safe whatever a server says."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from cortex.loadtest.findings import Report
from cortex.loadtest.html import page, timeline
from cortex.loadtest.html.markup import Markup, element
from cortex.loadtest.html.scales import Scale, around, upward
from cortex.loadtest.results import Window

_EMPTY = {"meta", "link"}


class _Parsed(HTMLParser):
    """Elements with their attributes, and whether each was closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def every(self, attribute: str) -> list[str | None]:
        return [attributes[attribute] for _, attributes in self.elements if attribute in attributes]


@pytest.mark.parametrize("report", ["whole", "plain", "unanswered", "hostile"])
def test_the_page_is_whole_and_alone(report: str, request: pytest.FixtureRequest) -> None:
    """Every element is closed, names are unique, nothing is fetched, and nothing could run."""
    parsed = _Parsed(page(request.getfixturevalue(report)))
    assert parsed.open == []
    ids = parsed.every("id")
    assert len(ids) == len(set(ids))
    assert not {"script", "img", "iframe", "object", "a"} & {tag for tag, _ in parsed.elements}
    assert parsed.every("href") == ["data:,"]
    assert parsed.every("src") == []
    assert not [name for _, attributes in parsed.elements for name in attributes if name.startswith("on")]
    assert next(iter(parsed.every("content")), "").startswith("default-src 'none'")


def test_how_long_was_measured(plain: Report) -> None:
    """A time has no digit that was rounded away."""
    text = page(replace(plain, result=replace(plain.result, seconds=5.276)))
    assert "5.3 s measured" in text
    assert "5.30 s" not in text


def test_what_a_server_says_is_only_text(hostile: Report) -> None:
    """Markup in addresses, errors, settings and words shows as it was written; what moves a cursor does not show."""
    text = page(hostile)
    assert "<script" not in text
    assert "\x1b" not in text
    assert text.count("&lt;script&gt;") > 15


def test_each_plot_says_what_it_shows(whole: Report) -> None:
    """A drawing is an image with a title and a description of its own, both of them told to a screen reader."""
    parsed = _Parsed(page(whole))
    plots = [attributes for tag, attributes in parsed.elements if tag == "svg"]
    assert len(plots) == 14  # seven, each for wide windows and for narrow ones
    ids = set(parsed.every("id"))
    for plot in plots:
        assert plot["role"] == "img"
        assert {plot["aria-labelledby"], plot["aria-describedby"]} <= ids


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("199.8</span> requests/s", "throughput"),
        ("1.84</span> s", "the latency that users see"),
        ("36.2 ms from sending", "what the server's own clock would say"),
        ("35 of 4,035 requests failed, 31 of them: HTTP 503 Service Unavailable", "errors by name"),
        ("errors&lt;0.1% does not hold: 0.87%", "conditions"),
        ("knee at 8", "the knee"),
        ("192 requests/s hold p99 at most 100 ms", "the search"),
        ("throughput_test.py cat.jpg http://localhost:8888", "the command"),
        ("Example CPU @ 2.60GHz", "the machine"),
        ("kind: constant, rate: 200", "settings"),
        ("1.140 to 1.190", "confidence"),
        ("1.87 cores busy", "the server's processor"),
    ],
)
def test_what_was_found_is_on_the_page(whole: Report, text: str, why: str) -> None:
    """Each part of a report has its figures on the page, with units."""
    assert text in page(whole), why


def test_parts_without_figures_are_left_out(plain: Report) -> None:
    """A closed loop of one run has no second curve, no sweep, no server and no cost."""
    text = page(plain)
    assert "section-timeline" in text
    for absent in ("section-sweep", "section-search", "section-changes", "section-stages", "from sending", ">Cost<"):
        assert absent not in text


def test_a_long_run_stays_small(whole: Report) -> None:
    """An hour is drawn in as many columns as can be seen, of which each shows the worst of its seconds."""
    second = whole.result.windows[0]
    slow = whole.result.windows[12]
    hour = tuple(replace(slow if at == 1801 else second, start=float(at)) for at in range(3600))
    columns = timeline.columns(hour, most=250)
    assert len(columns) <= 250
    assert sum(each.requests for each in columns) == 3600 * 200
    assert slow.latency
    assert max(each.p99 or 0 for each in columns) == slow.latency.p99
    assert len(page(Report(replace(whole.result, windows=hour)))) < 1_000_000


def test_the_last_moment_is_no_column_of_its_own() -> None:
    """What is left of a second has no rate worth drawing; a run of less than a second still has its column."""
    windows = (Window(0, 1, 100, 100, 0, None), Window(1, 0.01, 4, 4, 1, None))
    assert [(each.end, each.requests, each.errors) for each in timeline.columns(windows, 10)] == [(1.01, 104, 1)]
    assert len(timeline.columns(windows[1:], 10)) == 1


@pytest.mark.parametrize("windows", [(), (Window(0, 0, 1, 1, 0, None),), (Window(0, 1e-9, 0, 0, 1, None),)])
def test_odd_windows_do_not_break_the_page(plain: Report, windows: tuple[Window, ...]) -> None:
    """No windows, one of no length, one without an answer: the rest of the page stands."""
    assert "section-histogram" in page(Report(replace(plain.result, windows=windows)))


def test_elements_escape_all_but_markup() -> None:
    """Only what was made by `element` passes as it is."""
    assert element("p", "a<b", Markup("<b></b>"), None, class_='"') == '<p class="&quot;">a&lt;b<b></b></p>'
    assert element("line", x1=1.25, stroke_width=2, id=None) == '<line x1="1.2" stroke-width="2"></line>'


def test_scales_name_round_values() -> None:
    """Axes have round values, few of them, within their range; a value outside stands at the edge."""
    assert upward(437, 0, 100).ticks(5) == [0, 100, 200, 300, 400, 500]
    assert Scale(0.02, 3, 0, 100, log=True).ticks(6) == pytest.approx([0.03, 0.1, 0.3, 1, 3])
    assert around([1, 19], 0, 1).log is False
    assert around([1, 21], 0, 1).log is True
    assert Scale(0, 10, 0, 100)(-5) == 0
    assert Scale(1, 100, 0, 100, log=True)(10) == pytest.approx(50)
    assert [len(upward(value, 0, 1).ticks(5)) for value in (0, 1e-9, 3e-4, 0.7, 1, 99, 1e7)] == [
        pytest.approx(5, abs=2)
    ] * 7


def test_coordinates_are_numbers(whole: Report) -> None:
    """No drawing has a coordinate that is not a finite number."""
    assert not re.findall(r'="[^"]*\b(nan|inf)\b[^"]*"', page(whole))
