"""The pictures of the notebooks, as PNG, so that they look the same whatever a notebook is opened with."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from IPython.display import Image
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from notebooks.variants import BATCH, Speed, Variant

BLUE, PALE, ORANGE, GREY, INK = "#3b6ea8", "#a9c1dc", "#d9822b", "#dfe3e8", "#30363d"
_DPI = 144


def labels(picture: NDArray[np.uint8], ranking: Sequence[Mapping[str, Any]], title: str) -> Image:
    """Draw a picture beside its labels, best first; an entry of ``ranking`` has a label and a probability."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.9])
    left.imshow(picture)
    _plain(left, "what the model sees")
    left.set_yticks([])
    left.set_anchor("N")
    names = [str(each["label"]).replace("_", " ") for each in ranking]
    shares = [100 * float(each["probability"]) for each in ranking]
    bars = right.barh(names, shares, color=[BLUE] + [PALE] * (len(names) - 1))
    right.bar_label(bars, [f"{share:.1f} %" for share in shares], padding=4, color=INK)
    _plain(right, title)
    right.set_xlim(0, max(shares) * 1.2)
    return _image(figure, f"{title}: {', '.join(names)}")


def kinds(counts: Mapping[str, Counter[str]], title: str, most: int = 12) -> Image:
    """Draw how many operations of each kind every graph has, the commonest kinds on top and the rest as one bar."""
    figure = Figure(figsize=(max(9.0, 4.8 * len(counts)), 3.6), layout="constrained")
    axes = figure.subplots(1, len(counts), squeeze=False)[0]
    for place, (name, found) in zip(axes, counts.items(), strict=True):
        common = dict(found.most_common(most))
        rest = found.total() - sum(common.values())
        shown = common | ({"others": rest} if rest else {})
        bars = place.barh(list(shown), list(shown.values()), color=[BLUE] * len(common) + [PALE] * bool(rest))
        place.bar_label(bars, padding=3, color=INK, fontsize=9)
        _plain(place, f"{name}: {found.total()} operations")
        place.set_xlim(0, max(shown.values()) * 1.15)
    figure.suptitle(title, x=0.01, ha="left", color=INK, fontsize=12, fontweight="bold")
    return _image(figure, f"{title}: " + ", ".join(f"{name} {found.total()}" for name, found in counts.items()))


def placement(share: float, title: str) -> Image:
    """Draw which share of a graph's operations runs on the device, 0 to 1; the rest runs on the CPU."""
    figure = Figure(figsize=(9, 1.3), layout="constrained")
    place = figure.subplots()
    for start, width, color in ((0.0, share, BLUE), (share, 1 - share, ORANGE)):
        place.barh([""], [100 * width], left=[100 * start], color=color)
    _plain(place, f"{title}: {share:.1%} of the operations on the device, {1 - share:.1%} on the CPU")
    place.set_xlim(0, 100)
    return _image(figure, f"{share:.1%} of the operations run on the device")


def variants(measured: Sequence[Variant], where: str) -> Image:
    """Draw the speed and the agreement of each variant; ``where`` names the machine and the day."""
    figure = Figure(figsize=(11, 1.5 + 0.62 * len(measured)), layout="constrained")
    speed, latency, agreement = figure.subplots(1, 3, sharey=True)
    rows, names = np.arange(len(measured)), [each.name for each in measured]
    for shift, color, label, values in (
        (-0.19, PALE, "1 image at once", [each.single.images_per_second for each in measured]),
        (0.19, BLUE, f"{BATCH} images at once", [each.batched.images_per_second for each in measured]),
    ):
        _bars(speed, rows + shift, values, "{:.0f}", height=0.36, color=color, label=label)
    speed.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=2)
    _bars(latency, rows, [each.single.median_ms for each in measured], "{:.1f} ms", height=0.5, color=BLUE)
    _bars(agreement, rows, [each.agreement.max_difference for each in measured], "{:.1g}", height=0.5, color=ORANGE)
    _plain(speed, "images per second")
    _plain(latency, "median time for one image")
    _plain(agreement, "largest difference of a probability")
    speed.set_yticks(rows, names)
    figure.suptitle(f"Measured by this notebook: {where}", x=0.01, ha="left", color=INK, fontsize=12, fontweight="bold")
    return _image(figure, "; ".join(map(str, measured)))


def sweep(speeds: Mapping[int, Speed], where: str) -> Image:
    """Draw throughput and the time of a request by batch size; ``where`` names the device and the day."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    batches = [str(batch) for batch in speeds]
    for place, title, form, values in zip(
        figure.subplots(1, 2),
        ("images per second, by images at once", "median time for all of them"),
        ("{:.0f}", "{:.1f} ms"),
        ([each.images_per_second for each in speeds.values()], [each.median_ms for each in speeds.values()]),
        strict=True,
    ):
        _bars(place, np.arange(len(batches)), values, form, height=0.6, color=BLUE)
        _plain(place, title)
        place.set_yticks(np.arange(len(batches)), batches)
    figure.suptitle(f"Measured by this notebook: {where}", x=0.01, ha="left", color=INK, fontsize=12, fontweight="bold")
    rates = ", ".join(f"{batch}: {speed.images_per_second:.0f}" for batch, speed in speeds.items())
    return _image(figure, f"images per second by batch size: {rates}")


def _bars(place: Axes, rows: NDArray[Any], values: Sequence[float], form: str, **style: Any) -> None:
    bars = place.barh(rows, values, **style)
    place.bar_label(bars, [form.format(value) for value in values], padding=3, color=INK, fontsize=9)
    place.set_xlim(0, max(place.get_xlim()[1], 1.25 * max(values, default=0.0)) or 1)


def _plain(place: Axes, title: str) -> None:
    """Take away everything but the names and the bars, the first one on top."""
    place.set_title(title, loc="left", color=INK, fontsize=10)
    place.spines[:].set_visible(False)
    place.tick_params(length=0, labelcolor=INK)
    place.set_xticks([])
    if not place.yaxis_inverted():  # as that of an image is
        place.invert_yaxis()


def _image(figure: Figure, alt: str) -> Image:
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=_DPI, facecolor="white")
    return Image(png.getvalue(), width=round(figure.get_figwidth() * 96), alt=alt)
