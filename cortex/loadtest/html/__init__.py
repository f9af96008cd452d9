"""The report as a page: one file that needs no network, no script and nothing beside it.

document.py  the page: verdict first, then the sections
sections.py  the parts of the page, as plots, tables and lists
timeline.py distribution.py curves.py bars.py  the plots, drawn as SVG
drawing.py scales.py  what plots are drawn from
markup.py    elements, escaped by construction
page.css     how all of it looks: light, dark, narrow, printed
"""

from cortex.loadtest.html.document import page

__all__ = ["page"]
