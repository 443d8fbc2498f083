"""Colours, marks and fonts of every figure: readable in print, on a phone, in the dark, and by colour-blind readers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Theme:
    """What changes between a light and a dark page."""

    name: str
    paper: str
    ink: str
    quiet: str
    grid: str
    families: tuple[str, ...]


# Hues after Okabe and Ito, told apart by colour-blind readers; lighter on a dark page.
LIGHT = Theme(
    "light",
    "#ffffff",
    "#1c2126",
    "#5d6770",
    "#e3e7ea",
    ("#0072b2", "#d55e00", "#00866a", "#a94f84", "#7a6000", "#444c54"),
)
DARK = Theme(
    "dark",
    "#171b20",
    "#e8ecef",
    "#9aa5af",
    "#2c333a",
    ("#56b4e9", "#f28e4b", "#37c9a1", "#e29cc4", "#e0c341", "#b9c2ca"),
)

PAGE_COLOURS = {
    LIGHT.paper: "var(--card)",
    LIGHT.ink: "var(--ink)",
    LIGHT.quiet: "var(--quiet)",
    LIGHT.grid: "var(--line)",
    **{colour: f"var(--f{slot})" for slot, colour in enumerate(LIGHT.families)},
}
"""The page's variable for each colour of the light theme."""

MARKERS = ("o", "s", "^", "D", "v", "P")
FAMILY_NAMES = {"tst": "TST", "fastdepth": "FastDepth", "mobilevit": "MobileViT"}
FILLS = {
    "fp32": "full",
    "fp16": "full",
    "int8": "none",
    "int8-trt": "none",
    "prune30": "left",
    "prune30-int8": "bottom",
}
"""How the mark of a recipe is filled; an unknown recipe has its top half filled."""


def recipe_rank(recipe: str) -> tuple[int, str]:
    """The order of recipes in legends and tables: the known ones first."""
    known = list(FILLS)
    return (known.index(recipe) if recipe in known else len(known), recipe)


def family_name(family: str) -> str:
    """How a family is written."""
    return FAMILY_NAMES.get(family, family)


def family_order(families: Iterable[str]) -> list[str]:
    """The families in a fixed order: the well-known ones first, then the others by name."""
    known = list(FAMILY_NAMES)
    return sorted(set(families), key=lambda family: (known.index(family) if family in known else len(known), family))


def family_slot(family: str, families: Iterable[str]) -> int:
    """Which colour and mark a family has: the same in every figure of a report."""
    known = list(FAMILY_NAMES)
    if family in known:
        return known.index(family)
    others = [name for name in family_order(families) if name not in known]
    return (len(known) + others.index(family)) % len(MARKERS)


def rc(theme: Theme) -> Any:
    """Matplotlib settings of a theme, a dict (matplotlib's own type of it changes between versions)."""
    return {
        "axes.grid": True,
        "axes.axisbelow": True,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "xtick.minor.size": 0,
        "font.family": ["DejaVu Sans"],
        "font.size": 9.5,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.labelsize": 9.5,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "legend.fontsize": 9,
        "legend.frameon": False,
        "figure.facecolor": theme.paper,
        "savefig.facecolor": theme.paper,
        "axes.facecolor": theme.paper,
        "axes.edgecolor": theme.quiet,
        "axes.linewidth": 0.8,
        "axes.labelcolor": theme.ink,
        "axes.titlecolor": theme.ink,
        "text.color": theme.ink,
        "xtick.color": theme.quiet,
        "ytick.color": theme.quiet,
        "xtick.labelcolor": theme.ink,
        "ytick.labelcolor": theme.ink,
        "grid.color": theme.grid,
        "grid.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.autolayout": False,  # a figure whose layout is settled keeps it, whatever the user's own matplotlibrc says
        "figure.constrained_layout.use": False,
    }


def new_axes(width: float, height: float) -> Axes:
    """One pair of axes on a figure of its own (inches) that is not tied to a screen or to pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure: Figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Axes = figure.add_subplot()
    return axes


def figure_of(axes: Axes) -> Figure:
    """The whole figure that ``axes`` are part of."""
    from matplotlib.figure import Figure

    figure = axes.get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


BELOW, LINE = 36.0, 10.5
"""Points from the axes down to the first line of text under their label, and from one line to the next."""


def write_lines(
    axes: Axes, lines: Iterable[str], below: float = BELOW, *, gid: str, x: float = 0.0, across: str = "axes fraction"
) -> None:
    """Write lines of small text below the axes, ``LINE`` points each, the first ``below`` points under their lower edge.

    ``x`` is where they begin, as a share of what ``across`` names: the axes, or the whole figure (``figure fraction``).
    """
    for number, line in enumerate(lines):
        place = (0, -below - LINE * number)
        where: Any = (across, "axes fraction")
        axes.annotate(line, (x, 0), place, where, textcoords="offset points", va="top", fontsize=7.5, gid=gid)


def png(axes: Axes, *, dpi: int = 160) -> bytes:
    """The whole figure that ``axes`` are part of, as PNG."""
    import io

    buffer = io.BytesIO()
    figure_of(axes).savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def svg(axes: Axes, name: str, label: str) -> str:
    """The figure that ``axes`` are part of as an ``<svg>`` element for a page that defines the colours of a theme.

    Drawn in ``LIGHT``; every colour of that theme becomes the page's variable, so that one drawing serves light and dark. Text
    stays text. ``name`` makes the ids inside it different from those of other figures on the page; ``label`` says in words what
    it shows. What was drawn with ``gid="at-ID"`` has the class ``pt`` and the attribute ``data-cell="ID"``.
    """
    import io
    from html import escape

    import matplotlib as mpl

    for label_text in axes.texts:
        label_text.set_path_effects([])  # the page's style draws the outline
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure_of(axes).savefig(
            buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    text = buffer.getvalue()
    text = text[text.index("<svg ") :].replace("'DejaVu Sans'", "system-ui, 'DejaVu Sans', sans-serif")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'id="([a-zA-Z]+_\d+)"', "", text)
    text = re.sub(r'id="at-([^"]*)"', r'class="pt" data-cell="\1"', text)
    text = re.sub(r'id="(published|not-faster|key)"', r'class="\1"', text)
    text = re.sub(r'^<svg [^>]*?(viewBox="[^"]*")[^>]*>', rf'<svg \1 role="group" aria-label="{escape(label)}">', text)
    return re.sub("#[0-9a-f]{6}", lambda match: PAGE_COLOURS.get(match[0], match[0]), text)
