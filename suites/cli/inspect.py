"""Commands on single models: profile."""

from __future__ import annotations

from depthbench.suites.cli.artefacts import Model, Recipe, Size, Weights, deployed
from depthbench.suites.cli.listing import Json
from depthbench.suites.cli.output import print_json, print_table, stages
from depthbench.suites.cli.prediction import plain_onnx


def profile(
    model: Model, size: Size = None, recipe: Recipe = "fp32", weights: Weights = None, json: Json = False
) -> None:
    """Static costs: parameters, MACs by three counters and why they differ, file size, operators."""
    if (path := plain_onnx(model, recipe, size)) is not None:
        from depthbench.suites.export import onnx_size
        from depthbench.suites.profile import profile_model

        height, width = onnx_size(path)
        costs = profile_model(None, path, (height, width))
    else:
        with stages() as progress:
            made = deployed(model, recipe, size, progress, weights=weights)
        (height, width), costs = made.size, made.profile
    if json:
        print_json({"model": model, "recipe": recipe, "size": f"{height}x{width}", **costs})
    else:
        rows = [{"what": key, "value": value} for key, value in costs.items()]
        print_table(f"{model} ({recipe}) at {height}x{width}; 1 MAC = 2 FLOPs", rows)
