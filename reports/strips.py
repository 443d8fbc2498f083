"""Pictures for the page, small: the pictures of a panel as one JPEG strip per network, and what INT8 changed in them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from depthbench.reports import theme as themes
from depthbench.reports.load import Run
from depthbench.reports.pictures import ERROR_SPAN, LEFT, Panel, Worst, read_samples, relative_error
from depthbench.reports.theme import LIGHT, Theme
from depthbench.suites.results import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DIFFERENCE_SPAN = 0.1
"""Differences between two forms of a network are shown from -10 % (nearer) to +10 % (farther)."""
NO_TRUTH = (128, 128, 128)
WIDTH = 240
"""Width of one picture of a strip, in pixels."""


@dataclass(frozen=True)
class Difference:
    """How INT8 changed a network's predictions: ``maps`` (N, h, w), the relative difference to the form that it was made from.

    ``rms_m``: root mean square difference in metres over all pictures.
    """

    model: str
    name: str
    parent: str
    maps: NDArray[np.float32]
    rms_m: float


def differences(run: Run) -> list[Difference]:
    """INT8 against the form that it was made from, each pair of files once, smallest input of each network first met."""
    by_id = {record.id: record for record in run.records}
    found: list[Difference] = []
    seen: set[tuple[str, str]] = set()
    sizes: dict[str, tuple[int, int]] = {}
    for record, origin in zip(run.records, run.cells["made_from"], strict=True):
        parent = by_id.get(origin)
        if parent is None or not (record.precision or "").startswith("int8"):
            continue
        pair = record.evaluation or "", parent.evaluation or ""
        if pair in seen or sizes.setdefault(record.model, record.size) != record.size:
            continue
        seen.add(pair)
        paths = [run.folder.samples_path(digest) for digest in pair if digest]
        if len(paths) < 2 or not all(path.is_file() for path in paths):
            continue
        mine, theirs = (read_samples(run, each) for each in (record, parent))
        places = [(i, theirs.images[key]) for key, i in mine.images.items() if key in theirs.images]
        if places and mine.prediction.shape[1:] == theirs.prediction.shape[1:]:
            own, others = (list(each) for each in zip(*places, strict=True))
            found.append(_difference(record, parent, mine.prediction[own], theirs.prediction[others]))
    return found


def _difference(record: Record, parent: Record, mine: NDArray[np.float32], theirs: NDArray[np.float32]) -> Difference:
    change = mine - theirs
    name = f"{record.recipe} ({record.precision})" if record.precision != record.recipe else record.recipe
    return Difference(
        model=record.model,
        name=name,
        parent=parent.recipe,
        maps=(change / np.maximum(theirs, np.float32(0.01))).astype(np.float32),
        rms_m=float(np.sqrt(np.mean(np.square(change, dtype=np.float64)))),
    )


def draw_differences(shown: list[Difference], *, images: int = 2, most: int = 8, theme: Theme = LIGHT) -> Axes | None:
    """A row for each of the first ``most`` networks, ``images`` columns for each form; None when there is nothing to show."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not shown:
        return None
    models = list(dict.fromkeys(each.model for each in shown))[:most]
    forms = list(dict.fromkeys(each.name for each in shown if each.model in models))
    by_place = {(each.model, each.name): each for each in shown}
    count = min(images, *(len(each.maps) for each in shown))
    height, width = shown[0].maps.shape[1:]
    tile = 1.45, 1.45 * height / width
    inner = tile[0] * count * len(forms), (tile[1] + 0.2) * len(models)
    size = LEFT + inner[0] + 0.05, 0.3 + inner[1] + 0.75
    with mpl.rc_context(themes.rc(theme)):
        figure = Figure(figsize=size)
        FigureCanvasAgg(figure)
        places = {
            "left": LEFT / size[0],
            "right": 1 - 0.05 / size[0],
            "top": 1 - 0.3 / size[1],
            "bottom": 0.75 / size[1],
        }
        grid = figure.subplots(
            len(models),
            count * len(forms),
            squeeze=False,
            gridspec_kw={**places, "wspace": 0.04, "hspace": 0.2 / tile[1]},
        )
        for ax in grid.flat:
            ax.set(xticks=[], yticks=[], facecolor=theme.paper)
            ax.spines[:].set_visible(False)
        for row, model in enumerate(models):
            grid[row, 0].set_ylabel(model, fontsize=9, rotation=0, ha="right", va="center")
            for column, form in enumerate(forms):
                axes = grid[row, count * column : count * (column + 1)]
                if row == 0:
                    axes[0].annotate(
                        form, (0, 1), (0, 15), textcoords="offset points", xycoords="axes fraction", fontsize=9
                    )
                if (each := by_place.get((model, form))) is None:
                    axes[0].set_title("not in this run", fontsize=8, fontweight="normal", pad=3, color=theme.quiet)
                    continue
                axes[0].set_title(f"{each.rms_m:.3f} m rms", fontsize=8, fontweight="normal", loc="left", pad=3)
                for ax, difference in zip(axes, each.maps, strict=False):
                    drawn = ax.imshow(difference, cmap="PuOr", vmin=-DIFFERENCE_SPAN, vmax=DIFFERENCE_SPAN)
        below = figure.add_axes((LEFT / size[0], 0.5 / size[1], min(4.5, inner[0]) / size[0], 0.11 / size[1]))
        bar = figure.colorbar(drawn, cax=below, orientation="horizontal", extend="both")
        bar.set_label("nearer (−) or farther (+) than the form that it was made from", loc="left")
        bar.ax.xaxis.set_major_formatter(lambda value, _: f"{value:+.0%}" if value else "0")
    first: Axes = grid[0, 0]
    return first


def header_strip(panel: Panel) -> bytes:
    """Input and ground truth of each image, side by side, as JPEG."""
    tiles = []
    for rgb, depth in zip(panel.rgb, panel.depth, strict=True):
        truth = _coloured(np.where(depth > 0, depth, np.nan), "magma_r", *panel.limits)
        tiles += [rgb.transpose(1, 2, 0), truth]  # (h, w, 3)
    return _jpeg(tiles)


def model_strip(panel: Panel, model: str) -> bytes:
    """Prediction and relative error of each image, side by side, as JPEG."""
    tiles = []
    for prediction, depth in zip(panel.predictions[model], panel.depth, strict=True):
        tiles.append(_coloured(prediction, "magma_r", *panel.limits))
        tiles.append(_coloured(relative_error(prediction, depth), "PuOr", -ERROR_SPAN, ERROR_SPAN))
    return _jpeg(tiles)


def worst_strip(each: Worst, limits: tuple[float, float]) -> bytes:
    """Input, ground truth, prediction and relative error of a network's worst image, side by side, as JPEG."""
    truth = _coloured(np.where(each.depth > 0, each.depth, np.nan), "magma_r", *limits)
    prediction = _coloured(each.prediction, "magma_r", *limits)
    error = _coloured(relative_error(each.prediction, each.depth), "PuOr", -ERROR_SPAN, ERROR_SPAN)
    return _jpeg([each.rgb.transpose(1, 2, 0), truth, prediction, error])  # (h, w, 3)


def difference_strip(each: Difference, images: int = 6) -> bytes:
    """The maps of a difference side by side, as JPEG."""
    return _jpeg(
        [_coloured(difference, "PuOr", -DIFFERENCE_SPAN, DIFFERENCE_SPAN) for difference in each.maps[:images]]
    )


def scale(name: str) -> bytes:
    """A colour map from low to high, as JPEG, 256 pixels wide."""
    return _jpeg([_coloured(np.repeat(np.linspace(0, 1, 256)[None], 8, 0), name, 0.0, 1.0)], width=256)


def _coloured(values: NDArray[Any], name: str, low: float, high: float) -> NDArray[np.uint8]:
    """(h, w) values as (h, w, 3) colours; grey where there is none."""
    import matplotlib as mpl

    scaled = np.clip((values - low) / max(high - low, 1e-9), 0, 1)
    colours = (mpl.colormaps[name](np.nan_to_num(scaled))[..., :3] * 255).astype(np.uint8)  # (h, w, 3)
    colours[np.isnan(values)] = NO_TRUTH
    return colours


def _jpeg(tiles: list[NDArray[np.uint8]], width: int = WIDTH) -> bytes:
    from PIL import Image

    height = max(1, round(width * tiles[0].shape[0] / tiles[0].shape[1]))
    sheet = Image.new("RGB", (width * len(tiles), height))
    for i, tile in enumerate(tiles):
        sheet.paste(Image.fromarray(tile).resize((width, height), Image.Resampling.BILINEAR), (i * width, 0))
    buffer = io.BytesIO()
    sheet.save(buffer, format="JPEG", quality=85)
    return buffer.getvalue()
