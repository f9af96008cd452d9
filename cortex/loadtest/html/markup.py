"""Elements of HTML and SVG as text that is safe by construction: whatever is not `Markup` is escaped."""

import html as _html

from cortex.loadtest import units


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


_EMPTY = frozenset({"br", "col", "img", "link", "meta"})
Child = str | float | None
"""What stands in an element. None stands for nothing."""


def element(name: str, /, *children: Child, **attributes: str | float | None) -> Markup:
    """Return an element. In the names of attributes a trailing ``_`` is dropped, and any other stands for ``-``.

    Attributes that are None are left out.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_escaped(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{given}>" if name in _EMPTY else f"<{name}{given}>{joined(*children)}</{name}>")


def joined(*children: Child) -> Markup:
    """Return what several pieces make together."""
    return Markup("".join(_escaped(each) for each in children if each is not None))


def _escaped(value: str | float) -> str:
    if isinstance(value, Markup):
        return value
    if isinstance(value, float):
        return f"{value:.1f}".removesuffix(".0")
    return _html.escape(units.text(value))
