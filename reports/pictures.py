"""Pictures of what the networks see: input, ground truth, prediction and error of every model on the same images."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from depthbench.reports import theme as themes
from depthbench.reports.load import PARENT_RECIPES, Run
from depthbench.reports.theme import LIGHT, Theme
from depthbench.suites.results import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colorbar import Colorbar
    from matplotlib.colors import Colormap

IMAGES = 3
ERROR_SPAN = 0.5
"""Relative errors are shown from -50 % (seen too near) to +50 % (seen too far)."""


TILE, GAP, LEFT, TOP, BOTTOM = 1.9, 0.04, 1.3, 0.25, 0.72
"""Width of a picture, space between pictures and margins, in inches."""


@dataclass(frozen=True)
class Panel:
    """Pictures that share images and scales.

    ``rgb`` (N, 3, h, w) uint8, ``depth`` (N, h, w) metres with 0 = invalid, ``predictions`` by model (N, h, w) metres,
    ``notes`` how each model was deployed (``int8 224×224``), ``left_out`` models whose pictures are of other images,
    ``limits`` the depths in metres at the two ends of the colour scale, ``hardest`` the position of the image that the models
    together see worst of those that the run kept, ``data`` the data set and protocol that the images are of.
    """

    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32]
    predictions: dict[str, NDArray[np.float32]]
    notes: dict[str, str]
    left_out: tuple[str, ...]
    limits: tuple[float, float]
    hardest: int = 0
    data: str = ""


@dataclass(frozen=True)
class Samples:
    """Kept pictures of one evaluation: ``rgb`` (N, 3, h, w) uint8, ``depth`` and ``prediction`` (N, h, w) metres."""

    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32]
    prediction: NDArray[np.float32]

    def rmse(self, i: int) -> float:
        """Root mean square error of picture ``i`` in metres; nan where it has no ground truth."""
        valid = self.depth[i] > 0
        return (
            float(np.sqrt(np.mean((self.prediction[i] - self.depth[i])[valid] ** 2))) if valid.any() else float("nan")
        )

    @property
    def images(self) -> dict[str, int]:
        """Position of each image by a digest of its pixels and ground truth."""
        pairs = zip(self.rgb, self.depth, strict=True)
        return {hashlib.sha256(rgb.tobytes() + depth.tobytes()).hexdigest(): i for i, (rgb, depth) in enumerate(pairs)}


def panel(run: Run, *, images: int = IMAGES) -> Panel | None:
    """The pictures of a run: of each model its least compressed form at its smallest input; None when there are none.

    Models are compared on the images that most of them have in common with the first; the hardest is always among them.
    """
    shown = representatives(run, pictured=True)
    samples = {model: read_samples(run, record) for model, record in shown.items()}
    if not samples:
        return None
    keys = {model: each.images for model, each in samples.items()}
    groups = [[other for other in keys if set(keys[model]) & set(keys[other])] for model in keys]
    models = max(groups, key=len)
    common = [key for key in keys[models[0]] if all(key in keys[model] for model in models)]
    wrong = [np.mean([samples[m].rmse(keys[m][key]) for m in models]) for key in common]
    worst = common[int(np.nanargmax(wrong))] if np.isfinite(wrong).any() else common[0]
    common = [key for key in common if key in {worst, *[key for key in common if key != worst][: images - 1]}]
    first = samples[models[0]]
    depth = first.depth[[keys[models[0]][key] for key in common]]
    valid = depth[depth > 0]
    return Panel(
        rgb=first.rgb[[keys[models[0]][key] for key in common]],
        depth=depth,
        predictions={m: samples[m].prediction[[keys[m][key] for key in common]] for m in models},
        notes={m: _deployed(shown[m]) for m in models},
        left_out=tuple(model for model in samples if model not in models),
        hardest=common.index(worst),
        data=_data(shown[models[0]]),
        limits=(0.0, float(np.percentile(valid, 99))) if valid.size else (0.0, 1.0),
    )


@dataclass(frozen=True)
class Worst:
    """A network's worst image: ``rgb`` (3, h, w) uint8, ``depth`` and ``prediction`` (h, w) metres, its RMSE in metres.

    ``data``: the data set and protocol that it is of.
    """

    model: str
    note: str
    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32]
    prediction: NDArray[np.float32]
    rmse_m: float
    data: str = ""


def worst_cases(run: Run) -> list[Worst]:
    """Of each network, in the form of :func:`panel`, the worst of the images that it kept a picture of.

    A run keeps those that a network sees worst of all that were scored; one of an older version, a few not chosen so.
    """
    found = []
    for model, record in representatives(run, pictured=True).items():
        samples = read_samples(run, record)
        errors = [samples.rmse(i) for i in range(len(samples.rgb))]
        if np.isfinite(errors).any():
            i = int(np.nanargmax(errors))
            shown = samples.rgb[i], samples.depth[i], samples.prediction[i]
            found.append(Worst(model, _deployed(record), *shown, errors[i], _data(record)))
    return found


def draw_worst(shown: list[Worst], *, theme: Theme = LIGHT) -> NDArray[Any]:
    """A row per network: its worst image, the ground truth, its prediction and the relative error; the Axes, (N, 4)."""
    import matplotlib as mpl

    far = max(float(np.percentile(each.depth[each.depth > 0], 99)) for each in shown)
    near_to_far = {"cmap": _with_bad("magma_r", theme), "vmin": 0.0, "vmax": far}
    too_near_or_far = {"cmap": _with_bad("PuOr", theme), "vmin": -ERROR_SPAN, "vmax": ERROR_SPAN}
    with mpl.rc_context(themes.rc(theme)):
        grid = _grid(len(shown), 4, shown[0].depth.shape[0] / shown[0].depth.shape[1], theme)
        for axes, title in zip(grid[0], ("input", "ground truth", "prediction", "error"), strict=True):
            axes.set_title(title, fontsize=9, fontweight="normal", loc="center", pad=3)
        for axes, each in zip(grid, shown, strict=True):
            axes[0].imshow(each.rgb.transpose(1, 2, 0))  # (h, w, 3)
            axes[1].imshow(np.where(each.depth > 0, each.depth, np.nan), **near_to_far)
            depths = axes[2].imshow(each.prediction, **near_to_far)
            errors = axes[3].imshow(relative_error(each.prediction, each.depth), **too_near_or_far)
            _write_rmse(axes[3], each.prediction, each.depth)
            axes[0].set_ylabel(f"{each.model}\n{each.note}", fontsize=9, rotation=0, ha="right", va="center")
        _scales(grid[0, 0], depths, errors, " and ".join(dict.fromkeys(each.data for each in shown)))
    return grid


def representatives(run: Run, *, pictured: bool) -> dict[str, Record]:
    """The record that stands for each model, in the order of the run: its least compressed form at its smallest input.

    Only records with an accuracy; when ``pictured``, only those with sample pictures.
    """

    def rank(record: Record) -> tuple[int, int]:
        known = record.recipe in PARENT_RECIPES
        return PARENT_RECIPES.index(record.recipe) if known else len(PARENT_RECIPES), record.size[0] * record.size[1]

    shown: dict[str, Record] = {}
    for record in run.records:
        usable = record.evaluation and (not pictured or run.folder.samples_path(record.evaluation).is_file())
        if usable and (record.model not in shown or rank(record) < rank(shown[record.model])):
            shown[record.model] = record
    return shown


def _deployed(record: Record) -> str:
    """How a network was deployed: ``int8 224×224``."""
    return f"{record.recipe} {record.size[0]}×{record.size[1]}"


def _data(record: Record) -> str:
    """Data set and protocol of a record: ``rooms (native)``."""
    return f"{record.dataset} ({record.protocol})"


def read_samples(run: Run, record: Record) -> Samples:
    """The kept pictures of a record that has some."""
    with np.load(run.folder.samples_path(record.evaluation or "")) as file:
        return Samples(file["rgb"], file["depth"].astype(np.float32), file["prediction"].astype(np.float32))


def relative_error(prediction: NDArray[np.float32], depth: NDArray[np.float32]) -> NDArray[np.float32]:
    """(prediction - depth) / depth per pixel, nan where the ground truth is invalid."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(depth > 0, (prediction - depth) / depth, np.float32(np.nan))


def draw_panel(shown: Panel, *, theme: Theme = LIGHT) -> NDArray[Any]:
    """Draw a panel and return its Axes: a row of inputs and truths, then a row per model of predictions and errors."""
    import matplotlib as mpl

    with mpl.rc_context(themes.rc(theme)):
        count, height, width = shown.depth.shape
        grid = _grid(1 + len(shown.predictions), 2 * count, height / width, theme)
        near_to_far = {"cmap": _with_bad("magma_r", theme), "vmin": shown.limits[0], "vmax": shown.limits[1]}
        too_near_or_far = {"cmap": _with_bad("PuOr", theme), "vmin": -ERROR_SPAN, "vmax": ERROR_SPAN}
        for i, (rgb, depth) in enumerate(zip(shown.rgb, shown.depth, strict=True)):
            picture, truth = grid[0, 2 * i : 2 * i + 2]
            title = "hardest input / predictions" if i == shown.hardest else "input / predictions"
            picture.imshow(rgb.transpose(1, 2, 0))  # (h, w, 3)
            picture.set_title(title, fontsize=9, fontweight="normal", loc="center", pad=3)
            depths = truth.imshow(np.where(depth > 0, depth, np.nan), **near_to_far)
            truth.set_title("ground truth / errors", fontsize=9, fontweight="normal", loc="center", pad=3)
            for row, prediction in enumerate((each[i] for each in shown.predictions.values()), start=1):
                guess, wrong = grid[row, 2 * i : 2 * i + 2]
                guess.imshow(prediction, **near_to_far)
                errors = wrong.imshow(relative_error(prediction, depth), **too_near_or_far)
                _write_rmse(wrong, prediction, depth)
        for row, (model, note) in enumerate(shown.notes.items(), start=1):
            grid[row, 0].set_ylabel(f"{model}\n{note}", fontsize=9, rotation=0, ha="right", va="center")
        _scales(grid[0, 0], depths, errors, shown.data)
    return grid


def _scales(axes: Axes, depths: ScalarMappable, errors: ScalarMappable, data: str) -> None:
    """The two colour bars below the pictures, with the name of the data that they are of."""
    _scale(axes, 0, depths, f"depth [m], {data}", extend="max")
    scale = _scale(axes, 1, errors, "seen too near (−) or too far (+), with RMSE [m]", extend="both")
    scale.ax.xaxis.set_major_formatter(lambda value, _: f"{value:+.0%}" if value else "0")


def _grid(rows: int, columns: int, shape: float, theme: Theme) -> NDArray[Any]:
    """Axes at fixed places: the tiles have the pictures' ``shape`` (height over width), nothing is left to a layout engine."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tile = TILE, TILE * shape
    inner = columns * (tile[0] + GAP) - GAP, rows * (tile[1] + GAP) - GAP
    size = LEFT + inner[0] + GAP, TOP + inner[1] + BOTTOM
    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    grid: NDArray[Any] = figure.subplots(
        rows,
        columns,
        squeeze=False,
        gridspec_kw={
            "left": LEFT / size[0],
            "right": 1 - GAP / size[0],
            "top": 1 - TOP / size[1],
            "bottom": BOTTOM / size[1],
            "wspace": GAP / tile[0],
            "hspace": GAP / tile[1],
        },
    )
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[], facecolor=theme.paper)
        axes.spines[:].set_visible(False)
    return grid


def _scale(axes: Axes, place: int, mappable: ScalarMappable, label: str, *, extend: str) -> Colorbar:
    """A colour bar under the left (place 0) or the right (place 1) half of the pictures."""
    figure = themes.figure_of(axes)
    width, height = figure.get_size_inches()
    half = (width - LEFT - GAP) / 2
    bar = figure.add_axes(((LEFT + (place + 0.1) * half) / width, 0.48 / height, 0.8 * half / width, 0.11 / height))
    return figure.colorbar(mappable, cax=bar, orientation="horizontal", label=label, extend=extend)


def _with_bad(name: str, theme: Theme) -> Colormap:
    """A colour map that shows what has no ground truth in grey."""
    import matplotlib as mpl

    return mpl.colormaps[name].with_extremes(bad=theme.quiet)


def _write_rmse(axes: Axes, prediction: NDArray[np.float32], depth: NDArray[np.float32]) -> None:
    difference = (prediction - depth)[depth > 0]
    if difference.size:
        text = f"{np.sqrt(np.mean(difference**2)):.2f}"
        style = {"facecolor": "#ffffffcc", "edgecolor": "none", "pad": 1.5}
        axes.text(0.97, 0.05, text, transform=axes.transAxes, fontsize=8, ha="right", color="#1c2126", bbox=style)
