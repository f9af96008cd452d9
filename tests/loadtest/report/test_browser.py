"""The page in a real browser: what cannot be told from its text."""

import base64
import io
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from websockets.sync.client import ClientConnection, connect

from cortex.loadtest import files
from cortex.loadtest.findings import Report
from tests.waiting import DEADLINE

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PLOTS = ("timeline", "histogram", "curve", "sweep", "search", "changes", "stages")
WIDTHS = {"wide": (1280, 1000), "narrow": (390, 344)}
"""Of the window, and the name of the drawing that is for it. Half of a wide window is 484."""

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no browser: apt-get install chromium")


class Tab:
    """One page, spoken to over the browser's debugging protocol."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self.events: list[dict[str, Any]] = []

    def send(self, method: str, **parameters: Any) -> Any:
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (message := json.loads(self._socket.recv(DEADLINE))).get("id") != number:
            self.events.append(message)
        assert "error" not in message, message
        return message["result"]

    def open(self, path: Path) -> None:
        self.events.clear()
        self.send("Page.navigate", url=path.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(json.loads(self._socket.recv(DEADLINE)))

    def look(self, width: int, scheme: str) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def value(self, expression: str) -> Any:
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"]["value"]

    def complaints(self) -> list[dict[str, Any]]:
        """Return everything that the browser would show in red: console errors, exceptions, refused content."""
        self.value("1")  # what came before is in by now
        loud = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Page.javascriptDialogOpening")
        return [event for event in self.events if event["method"] in loud]

    def picture(self) -> Image.Image:
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=True)
        return Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    home = tmp_path_factory.mktemp("browser")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"]
    where = [f"--user-data-dir={home}", "--remote-debugging-port=0", "about:blank"]
    log = (home / "log").open("wb")
    process = subprocess.Popen([str(BROWSER), *options, *where], stdout=log, stderr=log)
    try:
        with connect(_page(home, process), max_size=None) as socket:
            tab = Tab(socket)
            for domain in ("Page", "Runtime", "Log"):
                tab.send(f"{domain}.enable")
            yield tab
    finally:
        process.terminate()
        try:
            process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


def test_every_plot_is_drawn_without_a_complaint(tab: Tab, whole: Report, tmp_path: Path) -> None:
    """On a desk and on a phone each plot has a size, has its shapes inside it, and nothing sticks out of the window."""
    files.write_html(whole, path := tmp_path / "report.html")
    tab.open(path)
    for width, _ in WIDTHS.values():
        tab.look(width, "light")
        shown = tab.value(_SHOWN)
        assert sorted(each["name"].rpartition("-")[0] for each in shown) == sorted(PLOTS)
        for each in shown:
            assert each["width"] > 250, each
            assert each["height"] > 60, each
            assert each["shapes"] > 5, each
            assert not each["outside"], each
        assert tab.value("document.documentElement.scrollWidth") <= width
    assert tab.complaints() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_schemes_show_in_their_colours(tab: Tab, whole: Report, tmp_path: Path, scheme: str) -> None:
    """What is seen has the colours of the scheme: its background, and the lines, bars and errors of the plots."""
    files.write_html(whole, path := tmp_path / "report.html")
    tab.open(path)
    tab.look(1280, scheme)
    colours = {name: _rgb(tab.value(_VARIABLE % name)) for name in ("back", "card", "p50", "p99", "answered", "error")}
    pixels = {colour: count for count, colour in tab.picture().getcolors(1 << 24) or ()}
    assert {name: pixels.get(colour, 0) > 100 for name, colour in colours.items()} == dict.fromkeys(colours, True)
    assert (sum(colours["card"]) > 3 * 128) == (scheme == "light")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(tab: Tab, whole: Report, tmp_path: Path, scheme: str) -> None:
    """Text stands out 4.5 to 1 and shapes 3 to 1, as WCAG 2 asks, in both schemes."""
    files.write_html(whole, path := tmp_path / "report.html")
    tab.open(path)
    tab.look(1280, scheme)
    least = dict.fromkeys(("text", "soft", "p50", "p99", "knee", "error"), 4.5)
    least |= dict.fromkeys(("answered", "raw", *(f"stage{index}" for index in range(6))), 3.0)
    card = _rgb(tab.value(_VARIABLE % "card"))
    ratios = {name: _contrast(_rgb(tab.value(_VARIABLE % name)), card) for name in least}
    assert {name: ratio for name, ratio in ratios.items() if ratio < least[name]} == {}


def test_pointing_at_a_second_reads_it(tab: Tab, whole: Report, tmp_path: Path) -> None:
    """While a pointer is over a second of the plot, and only then, its figures are shown."""
    files.write_html(whole, path := tmp_path / "report.html")
    tab.open(path)
    tab.look(1280, "light")
    assert tab.value(_READ) == []
    place = tab.value(_THIRTEENTH)
    tab.send("Input.dispatchMouseEvent", type="mouseMoved", x=place["x"], y=place["y"])
    read = tab.value(_READ)
    assert len(read) == 1
    assert read[0].startswith("13 s: p50 ")
    assert read[0].endswith("200/s, errors 35")


@pytest.mark.parametrize("report", ["plain", "unanswered", "hostile"])
def test_other_reports_open_without_a_complaint(
    tab: Tab, tmp_path: Path, report: str, request: pytest.FixtureRequest
) -> None:
    """A report with little to show, or with markup in every text, opens as quietly, and runs nothing."""
    files.write_html(request.getfixturevalue(report), path := tmp_path / "report.html")
    tab.open(path)
    tab.look(390, "light")
    assert tab.value("document.querySelectorAll('script, [onerror], [onload]').length") == 0
    assert tab.value("document.documentElement.scrollWidth") <= 390
    assert tab.complaints() == []


_SHOWN = """[...document.querySelectorAll('svg')].filter(svg => svg.getClientRects().length).map(svg => {
  const box = svg.getBoundingClientRect(), card = svg.closest('.card').getBoundingClientRect();
  const shapes = [...svg.querySelectorAll('path, rect, circle, line, text')];
  const outside = shapes.filter(shape => { const at = shape.getBoundingClientRect();
    return at.left < card.left || at.right > card.right || at.top < card.top || at.bottom > card.bottom; });
  return {name: svg.id, width: box.width, height: box.height, shapes: shapes.length,
          outside: outside.map(shape => shape.outerHTML)};
})"""
_VARIABLE = "getComputedStyle(document.documentElement).getPropertyValue('--%s')"
_READ = """[...document.querySelectorAll('.reading text')]
  .filter(text => text.getClientRects().length && getComputedStyle(text).visibility == 'visible')
  .map(text => text.textContent)"""
_THIRTEENTH = """(() => { const plot = document.querySelector('#timeline-1000'); plot.scrollIntoView();
  const box = plot.querySelectorAll('.catch')[13].getBoundingClientRect();
  return {x: box.x + box.width / 2, y: box.y + box.height / 2}; })()"""


def _page(home: Path, process: "subprocess.Popen[bytes]") -> str:
    """Return the address at which the only page of a browser is debugged, once it is up."""
    end, said = time.monotonic() + DEADLINE, home / "DevToolsActivePort"
    while not (said.exists() and len(lines := said.read_text().split()) == 2):
        assert process.poll() is None, (home / "log").read_text()
        assert time.monotonic() < end, (home / "log").read_text()
        time.sleep(0.02)
    port, path = lines
    with connect(f"ws://127.0.0.1:{port}{path}") as socket:
        targets = Tab(socket).send("Target.getTargets")["targetInfos"]
    page = next(each["targetId"] for each in targets if each["type"] == "page")
    return f"ws://127.0.0.1:{port}/devtools/page/{page}"


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(colour.strip().removeprefix("#"))
    return red, green, blue


def _contrast(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: tuple[int, int, int]) -> float:
    """Return the relative luminance of WCAG 2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (each / 255 for each in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
