"""Commands about latencies of devices that are not here: predict, calibrate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from depthbench.suites.cli.artefacts import Recipe, Size, Weights, deployed
from depthbench.suites.cli.listing import Json
from depthbench.suites.cli.output import Stages, err, out, print_json, print_table, stages

if TYPE_CHECKING:
    from depthbench.suites.targets.predict_calibrate import Calibration
    from depthbench.suites.targets.predicted import Prediction

CPU_SIZES = ("224x224", "256x320")


def predict(
    model: Annotated[
        str | None, typer.Argument(help="A catalogue name, an .onnx file, or package.module:function.")
    ] = None,
    board: Annotated[str | None, typer.Option(help="A Jetson board, or desktop-cpu once it is calibrated.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, fp16 or int8; fp16 if left out (fp32 for desktop-cpu).")
    ] = None,
    power_mode: Annotated[
        str | None, typer.Option(help="A power mode (see --list), its clocks locked; not stated if left out.")
    ] = None,
    recipe: Recipe = "fp32",
    size: Size = None,
    weights: Weights = None,
    calibration: Annotated[
        Path | None, typer.Option(help="A calibration written by depthbench calibrate; the shipped one if left out.")
    ] = None,
    listing: Annotated[bool, typer.Option("--list", help="List the boards with their calibration error.")] = False,
    json: Json = False,
) -> None:
    """Latency predicted for a board that is not here, with an 80 % interval, by kernels of the fused graph."""
    from depthbench.suites.targets import BOARD_OPSET, predicted
    from depthbench.suites.targets.predict_calibrate import read_calibration

    chosen = read_calibration(calibration) if calibration is not None else None
    if listing:
        _list(predicted.boards(chosen), json)
        return
    if model is None or board is None:
        raise ValueError("predict needs a MODEL and --board (depthbench predict --list shows the boards)")
    precision = precision or ("fp32" if board == "desktop-cpu" else "fp16")
    predicted.check(board, precision)
    path = plain_onnx(model, recipe, size)
    if path is None:
        with stages() as progress:
            made = deployed(model, recipe, size, progress, precision="fp32", opset=BOARD_OPSET, weights=weights)
        path = made.path
    result = predicted.predict(path, board, precision, power_mode=power_mode, calibration=chosen)
    if json:
        print_json({"model": model, "recipe": recipe, "predicted": True, **result.to_json()})
    else:
        _show(f"{model} ({recipe})", result)


def plain_onnx(model: str, recipe: str, size: str | None) -> Path | None:
    """The ONNX file that is read as it is, whose weights need no values; None for every other model.

    Raises:
        ValueError: no such file.
    """
    if not model.endswith(".onnx") or recipe != "fp32" or size is not None:
        return None
    if not Path(model).is_file():
        raise ValueError(f"{model}: no such ONNX file")
    return Path(model)


def _list(rows: list[dict[str, Any]], json: bool) -> None:
    if json:
        print_json({"boards": rows})
        return
    shown = [
        {
            "board": row["board"],
            "gpu": row["gpu"],
            "precision": row["precision"],
            "points": row["points"],
            "median error": "no point" if row["median_error"] is None else f"{row['median_error']:.0%}",
            "power modes": ", ".join(row["power_modes"]),
        }
        for row in rows
    ]
    print_table("Boards; error on published networks whose whole family was left out of the fit", shown)


def _show(what: str, result: Prediction) -> None:
    low, high = result.interval_ms
    mode = f", {result.power_mode}" if result.power_mode else ""
    out.print(
        f"{what} on {result.board} in {result.precision}{mode}: predicted, not measured\n"
        f"{result.latency_ms:.2f} ms (80 %: {low:.2f} to {high:.2f}), limited by {result.bound}, {result.kernels} kernels",
    )
    for note in result.notes:
        err.print(f"note: {note}")
    print_table("share of the time", [{"class": k, "share": f"{v:.0%}"} for k, v in result.share_by_class.items()])
    layers = [
        {
            "layer": layer.name,
            "class": layer.kind,
            "operators": layer.ops,
            "ms": f"{layer.latency_ms:.3f}",
            "limit": layer.bound,
        }
        for layer in result.top_layers
    ]
    print_table("most expensive layers", layers)


def calibrate(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="For desktop-cpu: what to measure, MODEL or MODEL@HxW; the catalogue at two sizes if left out."
        ),
    ] = None,
    target: Annotated[str, typer.Option(help="boards (published latencies) or desktop-cpu (measured now).")] = "boards",
    from_: Annotated[
        list[Path] | None, typer.Option("--from", help="A run whose measured board latencies are fitted too.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.2, help="Seconds of inference a network on desktop-cpu.")] = 4.0,
    output: Annotated[
        Path | None,
        typer.Option("--out", help="Where to write; needed for boards, the cache for desktop-cpu if left out."),
    ] = None,
    json: Json = False,
) -> None:
    """Fit the latency model: to published latencies and runs on your boards, or to this CPU in a few minutes."""
    from depthbench.suites.results import write_json
    from depthbench.suites.storage.disk import writable_file
    from depthbench.suites.targets import predicted
    from depthbench.suites.targets.predict_calibrate import calibrate_boards, calibrate_cpu
    from depthbench.suites.targets.predict_measured import cpu_points, record_points

    if output is not None:
        writable_file(output)
    with stages() as progress:
        if target == "desktop-cpu":
            if from_:
                raise ValueError("--from is for boards: desktop-cpu is measured now")
            files = _files(models or [], progress)
            points, tables = cpu_points(
                files, seconds=seconds, progress=lambda share: progress("measuring", share, 1.0)
            )
            made = calibrate_cpu(points, tables, progress=lambda what, share: progress(what, share, 1.0))
            output = output or predicted.cpu_calibration()
        elif target == "boards":
            if models:
                raise ValueError("models are measured for --target desktop-cpu alone; boards take --from RUN")
            if output is None:
                raise ValueError("calibrate of boards needs --out FILE (predict --calibration FILE reads it)")
            found = [record_points(run) for run in from_ or []]
            extra = [point for points, _ in found for point in points]
            tables = {name: table for _, known in found for name, table in known.items()}
            made = calibrate_boards(extra, tables, progress=lambda what, share: progress(what, share, 1.0))
        else:
            raise ValueError(f"unknown target {target!r} to calibrate (choices: boards, desktop-cpu)")
    write_json(output, made.to_json())
    _report(made, output, json)


def _files(models: list[str], progress: Stages) -> list[tuple[str, Path]]:
    """The ONNX files to measure, by name; catalogue models are exported once and kept in the store."""
    from depthbench.suites.models import MODELS

    found = []
    wanted = models or [f"{name}@{size}" for name in MODELS for size in CPU_SIZES]
    for i, entry in enumerate(wanted):
        model, _, size = entry.partition("@")
        path = plain_onnx(model, "fp32", size or None)
        found.append((entry, path or deployed(model, "fp32", size or None, progress).path))
        progress("exporting", i + 1, len(wanted))
    return found


def _report(made: Calibration, path: Path, json: bool) -> None:
    value = made.to_json()
    errors = value["errors"]
    if json:
        print_json(
            {"path": str(path), "intervals": value["intervals"], "errors": errors, "provenance": value["provenance"]}
        )
        return
    if "groups" in errors:
        rows = [
            {"networks": name, "points": row["points"], **{k: f"{row[k]:.1%}" for k in row if k != "points"}}
            for name, row in {**errors["groups"], **errors["families"]}.items()
        ]
        print_table("median absolute error, the whole family left out (in_fit: nothing left out)", rows)
        out.print(f"80 % intervals cover {errors['coverage']:.0%} of the points of families left out")
    else:
        out.print(
            f"{len(errors['rows'])} networks; fitted on half of them, median error on the other half: "
            f"{errors['other_half']:.1%}",
        )
    out.print(f"written: {path}")
