"""Pictures for the page, small: the pictures of a panel as one JPEG strip per network, and what INT8 changed in them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from depthbench.reports import theme as themes
from depthbench.reports.load import Run
from depthbench.reports.pictures import ERROR_SPAN, Panel, read_samples, relative_error
from depthbench.reports.theme import LIGHT, Theme
from depthbench.suites.results import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DIFFERENCE_SPAN = 0.2
"""Differences between two forms of a network are shown from -20 % (nearer) to +20 % (farther)."""
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
        if mine.prediction.shape == theirs.prediction.shape and np.array_equal(mine.rgb, theirs.rgb):
            found.append(_difference(record, parent, mine.prediction, theirs.prediction))
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


def draw_differences(shown: list[Difference], *, images: int = 4, most: int = 24, theme: Theme = LIGHT) -> Axes | None:
    """A row for each of the first ``most`` differences, a column per picture; None when there is nothing to show."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not shown:
        return None
    shown = shown[:most]
    count = min(images, *(len(each.maps) for each in shown))
    height, width = shown[0].maps.shape[1:]
    with mpl.rc_context(themes.rc(theme)):
        figure = Figure(figsize=(2.2 + 1.9 * count, 0.8 + 1.95 * height / width * len(shown)), layout="compressed")
        FigureCanvasAgg(figure)
        grid = figure.subplots(len(shown), count, squeeze=False)
        for axes, each in zip(grid, shown, strict=True):
            for ax, difference in zip(axes, each.maps, strict=False):
                drawn = ax.imshow(difference, cmap="PuOr", vmin=-DIFFERENCE_SPAN, vmax=DIFFERENCE_SPAN)
                ax.set(xticks=[], yticks=[])
                ax.spines[:].set_visible(False)
            label = f"{each.model}\n{each.name}\n{each.rms_m:.3f} m rms"
            axes[0].set_ylabel(label, fontsize=8, rotation=0, ha="right", va="center")
        bar = figure.colorbar(drawn, ax=grid, orientation="horizontal", aspect=50, extend="both", shrink=0.6)
        bar.set_label("INT8 nearer (−) or farther (+) than the form that it was made from")
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
