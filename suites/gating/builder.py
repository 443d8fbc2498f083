"""Builds the files that a gate compares, with the code of whichever checkout is on the import path.

Run by its path with the interpreter of a side: ``builder.py SPECS OUT``, where SPECS is a JSON list of ``{"name", "model",
"recipe", "size"}``. Writes ``OUT/NAME.onnx`` for each, and a JSON line on stdout after each: ``{"built": name}`` or
``{"missing": name, "reason": line}``. It relies on what scripts may rely on in any revision: ``depthbench profile``, which
builds the deployed file into the store below ``$DEPTHBENCH_CACHE``.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any


def build(spec: dict[str, Any], out: Path) -> str | None:
    """One file; the reason when this checkout cannot build it."""
    from depthbench.suites.cli.app import invoke

    store = Path(os.environ["DEPTHBENCH_CACHE"]) / "artefacts"
    before = set(store.glob("*/model.onnx"))
    said = io.StringIO()
    size = "x".join(map(str, spec["size"]))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        code = invoke(["profile", spec["model"], "--recipe", spec["recipe"], "--size", size, "--json"])
    if code:
        lines = [line.strip() for line in said.getvalue().splitlines() if line.startswith("depthbench: ")]
        return lines[-1].removeprefix("depthbench: ") if lines else f"depthbench profile ended with code {code}"
    [made] = set(store.glob("*/model.onnx")) - before
    shutil.copyfile(made, out / f"{spec['name']}.onnx")
    return None


def main() -> None:
    """Build all; what this checkout cannot build is named and passed over."""
    out = Path(sys.argv[2])
    for spec in json.loads(sys.argv[1]):
        reason = build(spec, out)
        answer = {"built": spec["name"]} if reason is None else {"missing": spec["name"], "reason": reason}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
