"""The cards of the shipped weights and the tables of their README, from evaluations made now. Not a test.

    python tests/benchmarks/cards.py              evaluates every file of suites/weights (minutes), writes what follows
    python tests/benchmarks/cards.py --from DIR   keeps the JSON documents in DIR (runs/cards), makes none again
    python tests/benchmarks/cards.py --rooms-only FILE   the tst-t that was trained on `rooms` alone (its command is in the
                                                  README): it does not ship, and its rows are left out without it

Needs the environment variable DEPTHBENCH_DATA. Each document is the output of one ``depthbench eval ... --json``, named in the
cards; the tables stand in README.md between ``<!-- NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from depthbench.suites.checkpoint import read_tensors
from depthbench.suites.models import file_sha256, weights_path
from depthbench.suites.results import write_atomic

WEIGHTS = Path(__file__).parents[2] / "suites" / "weights"
MODELS = [file.stem for file in sorted(WEIGHTS.glob("*.safetensors")) if "--" not in file.stem]
RECIPE = "prune30"
CHILDREN = [f"{model}@{RECIPE}" for model in MODELS if (WEIGHTS / f"{model}--{RECIPE}.safetensors").is_file()]
EVALUATIONS = {
    "rooms": ("--data", "rooms"),
    "nyu-eigen": ("--data", "nyu-labeled"),
    "nyu-fastdepth": ("--data", "nyu-labeled", "--protocol", "nyu-fastdepth"),
    "indoor-open": ("--data", "indoor-open", "--by-group"),
    "rooms-scaled": ("--data", "rooms", "--median-scale"),
    "nyu-eigen-scaled": ("--data", "nyu-labeled", "--median-scale"),
    "indoor-open-scaled": ("--data", "indoor-open", "--by-group", "--median-scale"),
}
"""Options of ``depthbench eval`` by the name of the document."""
TITLES = {
    "rooms": "`rooms` test, 256 images, protocol `native`",
    "nyu-eigen": "NYU Depth v2 test, 654 images, protocol `nyu-eigen`",
    "nyu-fastdepth": "NYU Depth v2 test, 654 images, protocol `nyu-fastdepth`",
    "indoor-open": "`indoor-open`, 36 images of cameras that no training image came from, protocol `native`",
    "rooms-scaled": "`rooms` test, each prediction scaled to the median of its ground truth",
    "nyu-eigen-scaled": "NYU Depth v2 test, `nyu-eigen`, each prediction scaled to the median of its ground truth",
    "indoor-open-scaled": "`indoor-open`, each prediction scaled to the median of its ground truth",
}
SOURCES = """`rooms` is this project's own renderer, under its licence. NYU Depth v2: Silberman, Hoiem, Kohli and Fergus,
*Indoor Segmentation and Support Inference from RGBD Images*, ECCV 2012, research data without a stated licence; none of its
images is shipped."""

ROOMS_ONLY = "tst-t, rooms alone"
Results = Mapping[str, Mapping[tuple[str, str], Mapping[str, Any]]]


def evaluate(folder: Path, rooms_only: Path | None) -> None:
    """One document for each of ``EVALUATIONS``, and one of ``rooms_only`` for each that scales; those there are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, options in EVALUATIONS.items():
        path = folder / f"{name}.json"
        if not path.is_file():
            trivial = ["mean-depth"] if name in ("rooms", "nyu-eigen") else []
            _document(path, [*MODELS, *CHILDREN, *trivial, *options])
        path = _rooms_only(folder, name)
        if rooms_only is not None and "--median-scale" in options and not path.is_file():
            _document(path, ["tst-t", "--weights", str(rooms_only), *options])


def _document(path: Path, words: list[str]) -> None:
    command = ["depthbench", "eval", *words, "--against", "fastdepth", "--json"]
    write_atomic(path, subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def _rooms_only(folder: Path, name: str) -> Path:
    return folder / f"{name}--rooms-only.json"


def load(folder: Path) -> Results:
    """The evaluations by document, model and recipe."""
    results = {}
    for name in EVALUATIONS:
        document = json.loads((folder / f"{name}.json").read_text("utf-8"))
        results[name] = {(each["model"], each["recipe"]): each for each in document["evaluations"]}
        if (path := _rooms_only(folder, name)).is_file():
            results[name][ROOMS_ONLY, "fp32"] = json.loads(
                path.read_text("utf-8")
            )  # one model: the document is its own
    return results


def accuracy_table(results: Results) -> str:
    """RMSE, gain over the mean depth, AbsRel and δ1 of every file on `rooms` and NYU, with its training."""
    lines = [
        "| | rooms RMSE | gain | AbsRel | δ1 | NYU RMSE | gain | AbsRel | δ1 | samples | wall time | MB |",
        "| --- " * 12 + "|",
    ]
    trivial = {name: results[name]["mean-depth", "fp32"] for name in ("rooms", "nyu-eigen")}
    for recipe in ("fp32", RECIPE):
        for model in MODELS:
            if (model, recipe) not in results["rooms"]:
                continue
            cells = []
            for name, mean in trivial.items():
                here = results[name][model, recipe]
                gain = 1 - here["rmse_m"] / mean["rmse_m"]
                cells += [f"{here['rmse_m']:.3f}", f"{gain:.0%}", f"{here['abs_rel']:.3f}", f"{here['delta1']:.3f}"]
            file = weights_path(model, None if recipe == "fp32" else recipe)
            samples, seconds = _training(file)
            cells += [f"{samples:,}", f"{seconds / 60:.0f} min", f"{file.stat().st_size / 1e6:.1f}"]
            lines.append(f"| {model}{'' if recipe == 'fp32' else ', ' + recipe} | " + " | ".join(cells) + " |")
    cells = []
    for mean in trivial.values():
        cells += [f"{mean['rmse_m']:.3f}", "–", f"{mean['abs_rel']:.3f}", f"{mean['delta1']:.3f}"]
    return "\n".join([*lines, "| mean-depth | " + " | ".join([*cells, "–", "–", "–"]) + " |"])


def comparison_table(results: Results) -> str:
    """Every network on every data set and camera against FastDepth: RMSE and δ1, differences with paired 95 % intervals."""
    lines = ["| data | model | RMSE | against fastdepth | δ1 | against fastdepth |", "| --- " * 6 + "|"]
    for name in EVALUATIONS:
        groups = ["", *next(iter(results[name].values())).get("groups", {})]
        for group in groups:
            for model in [*MODELS, *([ROOMS_ONLY] if (ROOMS_ONLY, "fp32") in results[name] else [])]:
                whole = results[name][model, "fp32"]
                here = whole["groups"][group] if group else whole
                cells = [f"{here['rmse_m']:.3f}", _difference(here, "rmse_m"), f"{here['delta1']:.3f}"]
                cells.append(_difference(here, "delta1"))
                place = f"{name}, {group} ({here['n']})" if group else f"{name} ({here['n']})"
                lines.append(f"| {place} | {model} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _difference(here: Mapping[str, Any], metric: str) -> str:
    interval = here.get(f"{metric}_difference_ci95")
    if interval is None:
        return "–"
    low, high = (f"{value:+.3f}" for value in interval)
    return f"{here[f'{metric}_difference']:+.3f} [{low}, {high}]".replace("-", "−")


def _training(file: Path) -> tuple[int, float]:
    """Samples and seconds of all stretches that a file was trained in."""
    metadata = read_tensors(file)[1]
    if "lineage" in metadata:
        return metadata["total_samples"], sum(stretch["seconds"] for stretch in metadata["lineage"])
    tuned = [report for report in metadata["reports"] if report["step"] == "finetune"]
    return sum(report["samples"] for report in tuned), sum(report["seconds"] for report in tuned)


def _stretches(lineage: list[dict[str, Any]]) -> str:
    """A table of the stretches of a training, from the configuration that each was run with."""
    lines = ["| samples | data | sizes | precision | `transformer_lr` | `loss.metric` |", "| --- " * 6 + "|"]
    for stretch in lineage:
        config = stretch["config"]
        whole = sum(config["mixture"].values())
        parts = [
            f"{share / whole:.0%} {name}"
            + (f" ({config['images'][name]:,} images)" if name in config["images"] else "")
            for name, share in config["mixture"].items()
        ]
        sizes = "; ".join(f"{stage['share']:.0%} {' or '.join(stage['sizes'])}" for stage in config["stages"])
        older = (config.get("transformer_lr", 1.0), config["loss"].get("metric", 0.0))  # fields that came later
        cells = [f"{stretch['samples']:,}", ", ".join(parts), sizes, config["precision"], *map(str, older)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def card(model: str, results: Results) -> str:
    """The card of a network: its file, its data, its commands, its accuracy."""
    file = weights_path(model)
    metadata = read_tensors(file)[1]
    samples, seconds = _training(file)
    commands = "\n".join(stretch["command"] for stretch in metadata["lineage"])
    evals = "\n".join(f"depthbench eval {model} {' '.join(options)} --json" for options in EVALUATIONS.values())
    return f"""# {model}

A monocular depth network: RGB in [0, 1] to metric depth in metres, up to 10 m, indoors. `{file.name}`, SHA-256
`{file_sha256(file)}`.

## Training

{samples:,} samples in {len(metadata["lineage"])} stretches, {seconds / 60:.0f} minutes on one CPU thread of a busy machine,
from random values, on the training split of `rooms` (its first 2,048 images where no other number stands) and the 795 images
of NYU Depth v2's official training split; the test splits were never trained on, tuned on or calibrated on.

{_stretches(metadata["lineage"])}

```
{commands}
```

Each stretch starts from the result of the one before it, under the name that it had at the time.

{SOURCES}

## Accuracy

The exported float32 file at 224×224, by

```
{evals}
```

{_accuracies(model, "fp32", results)}
{_child(model, results)}
## Limits

A short training: fit for comparing networks and their compressed forms, not for a product. It knows the field of view of NYU's
camera and 224×224 inputs; other cameras are seen at a wrong scale, as the last two rows show.
"""


def _accuracies(model: str, recipe: str, results: Results) -> str:
    rows = ["| data and protocol | RMSE m | AbsRel | δ1 | δ2 | δ3 |", "| --- " * 6 + "|"]
    for name, title in TITLES.items():
        here = results[name][model, recipe]
        cells = [here[metric] for metric in ("rmse_m", "abs_rel", "delta1", "delta2", "delta3")]
        rows.append(f"| {title} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")
    return "\n".join(rows)


def _child(model: str, results: Results) -> str:
    """The pruned child's part of a card; empty when none is shipped."""
    file = weights_path(model, RECIPE)
    if not file.is_file():
        return ""
    metadata = read_tensors(file)[1]
    return f"""
### Its pruned child

`{file.name}`, SHA-256 `{file_sha256(file)}`, made by

```
{metadata["command"]}
```

and evaluated as above with `--recipe {RECIPE}`:

{_accuracies(model, RECIPE, results)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="folder", type=Path, default=Path("runs/cards"), metavar="DIR")
    parser.add_argument("--rooms-only", type=Path, metavar="FILE")
    options = parser.parse_args()
    evaluate(options.folder, options.rooms_only)
    results = load(options.folder)
    for model in MODELS:
        write_atomic(WEIGHTS / "cards" / f"{model}.md", card(model, results).encode())
    readme = WEIGHTS / "README.md"
    text = readme.read_text("utf-8")
    for name, table in {"accuracy": accuracy_table(results), "comparison": comparison_table(results)}.items():
        text, found = re.subn(
            rf"(<!-- {name} -->\n).*?(\n<!-- end -->)", lambda m, t=table: m[1] + t + m[2], text, flags=re.S
        )
        if not found:
            sys.exit(f"{readme}: no place <!-- {name} --> ... <!-- end -->")
    write_atomic(readme, text.encode())


if __name__ == "__main__":
    main()
