"""The command sensitivity: what each group of a network's channels is worth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from depthbench.suites.cli.artefacts import Size, Weights
from depthbench.suites.cli.listing import Json
from depthbench.suites.cli.output import out, print_json, print_table, stages
from depthbench.suites.cli.running import DataRoot, DepthScale, SkipBroken

if TYPE_CHECKING:
    from depthbench.compression.sensitivity import Sensitivity


def sensitivity(
    model: Annotated[str, typer.Argument(help="A catalogue name or package.module:function.")],
    data: Annotated[str, typer.Option(help="Data set whose calibration split is scored on.")] = "rooms",
    data_root: DataRoot = None,
    depth_scale: DepthScale = None,
    skip_broken: SkipBroken = 0,
    size: Size = None,
    ratio: Annotated[
        list[float] | None,
        typer.Option(help="Share of a group's channels to remove; repeatable. .25, .5, .75 if left out."),
    ] = None,
    importance: Annotated[str, typer.Option(help="By which the channels of a group are ranked.")] = "l2",
    round_to: Annotated[int, typer.Option(min=1, help="Channels that stay are a multiple of it.")] = 8,
    heads: Annotated[bool, typer.Option("--heads", help="Whole attention heads may go too.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Calibration images to score on.")] = 32,
    weights: Weights = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the curves into this PNG file.")] = None,
    json: Json = False,
) -> None:
    """Accuracy against the share removed, of each group of channels alone: what can go, and what must stay.

    Nothing is trained. Every point is kept in the store: a scan that was stopped goes on, and pruning with scope
    sensitivity uses the same ones.
    """
    from depthbench.compression.options import prune_options
    from depthbench.compression.sensitivity import RATIOS, scan_network
    from depthbench.suites.data import dataset_info
    from depthbench.suites.models import build_model, resolve_model
    from depthbench.suites.schema import parse_size
    from depthbench.suites.source import DataSource
    from depthbench.suites.step_context import StepContext
    from depthbench.suites.storage.cache import cache_dir
    from depthbench.suites.storage.disk import writable_file

    for share in ratio or ():
        if not 0 < share < 1:
            raise ValueError(f"--ratio {share:g} is not in (0, 1)")
    spec = resolve_model(model, weights=weights)
    if spec.kind == "onnx":
        raise ValueError(f"{model}: an ONNX file cannot be pruned; name a catalogue model or package.module:function")
    height, width = parse_size(size) if size else (224, 224)
    options = prune_options(  # the target plays no part in a scan
        {"macs_ratio": 0.5, "importance": importance, "round_to": round_to, "heads": heads, "size": (height, width)}
    )
    if plot is not None:
        writable_file(plot)
    module = build_model(spec)
    protocol = dataset_info(data).protocol
    source = DataSource(data, protocol, data_root, depth_scale, skip_broken)
    with stages() as progress:
        context = StepContext(source, module, cache_dir() / "trainings", images=limit)
        found = scan_network(
            module,
            options,
            context,
            ratios=ratio or RATIOS,
            progress=lambda done, total: progress("points of the scan", done, total),
        )
    if plot is not None:
        draw(found, plot, f"{model} at {height}x{width}", f"{data} ({protocol})")
    if json:
        scored = {"data": data, "protocol": protocol, "images": limit, "size": f"{height}x{width}"}
        print_json({"model": model, **scored, **found.to_json()})
        return
    print_table(
        f"{model} on {limit} calibration images of {data} ({protocol}) at {height}x{width}: "
        f"RMSE {found.whole.score['rmse_m']:.3f} m, δ1 {found.whole.score['delta1']:.3f} whole",
        rows(found),
    )
    if plot is not None:
        out.print(f"curves: {plot}")


def rows(found: Sensitivity) -> list[dict[str, Any]]:
    """A row a point, the groups with the least harm per MAC saved first."""
    whole = found.whole
    table = [
        {
            "group": name,
            "removed": f"{point.ratio:.0%}",
            "MACs saved": f"{1 - point.macs / whole.macs:.1%}",
            "RMSE m": f"{point.score['rmse_m']:.3f}",
            "change": f"{point.score['rmse_m'] - whole.score['rmse_m']:+.3f}",
            "δ1": f"{point.score['delta1']:.3f}",
        }
        for name in sorted(found.groups, key=lambda name: _worth(found, name))
        for point in found.groups[name]
    ]
    return table


def _worth(found: Sensitivity, name: str) -> float:
    points = found.groups[name]
    if not points:
        return float("inf")
    saved = 1 - points[-1].macs / found.whole.macs
    return (points[-1].score["rmse_m"] - found.whole.score["rmse_m"]) / max(saved, 1e-9)


def draw(found: Sensitivity, path: Path, title: str, data: str) -> None:
    """The RMSE on ``data`` of each group's points over the share removed, those that harm most named, as a PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.add_subplot()
    curves = {name: points for name, points in found.groups.items() if points}
    named = _most_harmful(found, list(curves), 8)
    for name, points in curves.items():
        x = [0.0, *(point.ratio for point in points)]
        y = [found.whole.score["rmse_m"], *(point.score["rmse_m"] for point in points)]
        strong = name in named
        axes.plot(x, y, marker="o", markersize=3, alpha=1 if strong else 0.3, color=None if strong else "grey")
        if strong:
            axes.lines[-1].set_label(name)
    axes.set(title=title, xlabel="share of the group's channels removed", ylabel=f"RMSE in m on {data}")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)


def _most_harmful(found: Sensitivity, names: Sequence[str], count: int) -> set[str]:
    return set(sorted(names, key=lambda name: -found.groups[name][-1].score["rmse_m"])[:count])
