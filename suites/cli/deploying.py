"""The folder that ``depthbench choose --export`` writes: the chosen ONNX file, its card, its numbers, how to run it."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthbench.suites.results import Record, write_atomic

if TYPE_CHECKING:
    from depthbench.reports.decide import Decision
    from depthbench.reports.load import Run

EXAMPLE = '''"""Depth of an image: python example.py IMAGE.jpg DEPTH.png (16-bit, mm); needs numpy, pillow, onnxruntime."""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

HEIGHT, WIDTH = {height}, {width}


def predict(session, image):
    """Depth in metres, (H, W) of the image, from a PIL image."""
    small = image.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    rgb = np.asarray(small, dtype=np.float32).transpose(2, 0, 1)[None] / 255  # (1, 3, HEIGHT, WIDTH) in [0, 1]
    depth = session.run(None, {{session.get_inputs()[0].name: rgb}})[0].reshape(HEIGHT, WIDTH)
    return np.asarray(Image.fromarray(depth.astype(np.float32)).resize(image.size, Image.Resampling.BILINEAR))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    model = Path(__file__).with_name("model.onnx")
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    depth = predict(session, Image.open(sys.argv[1]))
    Image.fromarray((depth * 1000).clip(0, 65535).astype(np.uint16)).save(sys.argv[2])
    print(f"{{depth.shape[1]}}x{{depth.shape[0]}}, {{depth.min():.2f}} to {{depth.max():.2f}} m -> {{sys.argv[2]}}")
'''


def export_choice(run: Run, decision: Decision, folder: Path) -> Path:
    """Write ``model.onnx``, ``README.md`` (the model card), ``numbers.json``, ``example.py`` and, for a board, ``deploy.sh``.

    ``ValueError`` when ``folder`` is a file, or when the chosen ONNX can be neither found nor made again.
    """
    from depthbench.reports.decide import decision_json

    assert decision.best is not None
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: not a folder")
    record = next(record for record in run.records if record.id == decision.best.row["id"])
    model = find_artefact(run, record)
    write_atomic(folder / "model.onnx", model.read_bytes())
    numbers = decision_json(decision) | {"lineage": [asdict(link) for link in record.lineage]}
    write_atomic(folder / "numbers.json", (json.dumps(numbers, indent=1, allow_nan=False) + "\n").encode())
    write_atomic(folder / "example.py", EXAMPLE.format(height=record.size[0], width=record.size[1]).encode())
    lines = trtexec_lines(record)
    if lines:
        script = folder / "deploy.sh"
        write_atomic(script, ("#!/bin/sh\n# on the board, in this folder\nset -e\n" + "\n".join(lines) + "\n").encode())
        script.chmod(0o755)
    write_atomic(folder / "README.md", card(run, decision, record, lines).encode())
    return folder


def find_artefact(run: Run, record: Record) -> Path:
    """The ONNX file that a cell deployed, by its lineage: out of the cache, else made again from the run's suite.

    ``ValueError`` when it is not in the cache and this installation would make another file.
    """
    from depthbench.suites.storage.store import Store

    lineage = json.loads(json.dumps([asdict(link) for link in record.lineage]))
    store = Store("artefacts")
    for found in store.described():
        if found.meta.get("lineage") == lineage and (entry := store.get(found.folder.name)) is not None:
            return entry.folder / "model.onnx"
    return _made_again(run, record)


def _made_again(run: Run, record: Record) -> Path:
    from depthbench.suites.plan import make_plan
    from depthbench.suites.runner import artefact_spec, describe_data, prepare_images
    from depthbench.suites.schema import Suite
    from depthbench.suites.stages import artefact

    gone = ValueError(
        f"{run.folder.root}: the file of {record.model} {record.recipe} is no longer in the cache and cannot be made again "
        "here (other weights, data or library versions); run the suite again"
    )
    suite = Suite.model_validate(_as_written(run.manifest["suite"]))
    data, source, splits = describe_data(suite, None)
    job = next((job for job in make_plan(suite, data) if job.id == record.id), None)
    if job is None:
        raise gone
    prepare_images(splits[1], lambda *_: None)
    made = artefact(artefact_spec(job, source, splits[1].digest))
    if made.sha256 != record.lineage[-1].digest and made.lineage != record.lineage:
        raise gone
    return made.path


def _as_written(suite: dict[str, Any]) -> dict[str, Any]:
    """A manifest's suite as a suite file has it: sizes as HxW."""
    blocks = [block | {"sizes": [f"{h}x{w}" for h, w in block["sizes"]]} for block in suite["matrix"]]
    return suite | {"matrix": blocks}


def board_facts(target: str) -> dict[str, str] | None:
    """The row of the board table that a target is predicted for, or None: then no board is known by that name."""
    table = resources.files("depthbench.suites.targets").joinpath("boards.csv").read_text(encoding="utf-8")
    return next((row for row in csv.DictReader(table.splitlines()) if row["board"] == target), None)


def trtexec_lines(record: Record) -> list[str]:
    """Commands that build and time an engine with the TensorRT of the board's JetPack; none for other targets."""
    if record.target_kind != "board":
        return []
    facts = board_facts(record.target) or {}
    version = tuple(int(part) for part in facts.get("tensorrt", "10.3").split(".")[:2])
    flags = {"fp32": "", "fp16": " --fp16"}.get(record.precision or "", " --int8 --fp16")
    if version >= (11, 0):
        flags = ""  # the file's own types decide
    workspace = "--workspace=1024" if version < (8, 4) else "--memPoolSize=workspace:1024"
    fair = (
        " --noDataTransfers --useSpinWait --useCudaGraph --separateProfileRun" if (10, 0) <= version < (11, 0) else ""
    )
    binary = "/usr/src/tensorrt/bin/trtexec"
    return [
        f"{binary} --onnx=model.onnx --saveEngine=model.engine{flags} {workspace}",
        f"{binary} --loadEngine=model.engine --warmUp=1000 --duration=60{fair} --exportTimes=times.json",
    ]


def card(run: Run, decision: Decision, record: Record, lines: list[str]) -> str:
    """The model card in Markdown: what it is, how good, how sure, for what it is not."""
    from depthbench.suites.cli.deciding import decision_lines

    assert decision.best is not None
    row = decision.best.row
    facts = board_facts(record.target)
    device = (
        f"{facts['name']} (JetPack {facts['last_jetpack']}, TensorRT {facts['tensorrt']})" if facts else record.target
    )
    data = run.manifest.get("dataset") or {}
    steps = " → ".join(f"{link.stage} `{link.digest[:12]}`" for link in record.lineage)
    rows = [
        ("network", f"{record.model}, {record.recipe}, {record.precision}"),
        ("device", device),
        ("input", f"`rgb` float32 (1, 3, {record.size[0]}, {record.size[1]}), RGB in [0, 1]"),
        ("output", "depth in metres, float32, the input's height and width"),
        ("RMSE", _with_interval(row, "rmse_m", "rmse_lo_m", "rmse_hi_m", "m")),
        ("AbsRel, δ1", f"{row['abs_rel']:.3f}, {row['delta1']:.3f}"),
        (f"latency, {row['latency_kind']}", _with_interval(row, "latency_ms", "latency_lo_ms", "latency_hi_ms", "ms")),
        ("cost", f"{row['gmacs']:.3f} GMAC, {row['params_m']:.2f} M parameters, {row['size_mb']:.2f} MB"),
        ("images", f"{row['n_images']} of {record.dataset} {data.get('split', '')}, protocol {record.protocol}"),
        ("lineage", steps),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    answer = "\n".join(f"- {line.strip()}" for line in decision_lines(decision))
    deploy = "```\n" + "\n".join(lines) + "\n```\n\n(or `sh deploy.sh`)\n\n" if lines else ""
    return f"""# {decision.best.name} for {record.target}

| | |
| --- | --- |
{table}

## Why this one

{answer}

## How to run it

{deploy}```
python example.py IMAGE.jpg DEPTH.png
```

## What it is not for

Its accuracy is that on the images named above; on others it can be much worse, and depth from a single image has no
guaranteed scale. Do not steer anything that can hurt by it alone.
"""


def _with_interval(row: Any, value: str, low: str, high: str, unit: str) -> str:
    bounds = f" ({row[low]:.3g} to {row[high]:.3g})" if row[low] == row[low] else ""
    return f"{row[value]:.3g} {unit}{bounds}"
