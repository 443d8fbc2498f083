"""The run as executed notebooks: jupytext source, run by papermill, converted by nbconvert. Works offline."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import run_sync

from depthbench.suites.results import write_atomic

OFFLINE = """{% extends "index.html.j2" %}
{% block html_head_js %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
"""
"""nbconvert's own page without the scripts that it would have a browser fetch; nothing here needs them."""


_EMPTY = "get_ipython().reset(new_session=True)"


def write_notebooks(run: Path, out: Path, names: Sequence[str]) -> None:
    """Execute notebooks of this package on ``run`` and write ``<name>.ipynb`` and ``<name>.html`` of each into ``out``.

    The kernel is this interpreter's own, and one for all: what it imports takes longer than what a notebook does. Each begins
    without names, counting its cells from 1. They refer to the run by a path relative to ``out``, so that a run and its
    report can be moved together.
    """
    out.mkdir(parents=True, exist_ok=True)
    kernel = _Kernel(kernel_name="python3")
    try:
        for name in names:
            if kernel.has_kernel:
                run_sync(kernel.forget)()
            _write_notebook(run, out, name, kernel)
            kernel.hang_up()
    finally:
        kernel.hang_up()
        if kernel.has_kernel:
            run_sync(kernel.shutdown_kernel)(now=True)


class _Kernel(AsyncKernelManager):
    """A kernel for one notebook after another, which closes the connections that papermill opens to it and leaves open."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.opened: list[Any] = []

    def client(self, **options: Any) -> Any:
        """A connection to the kernel."""
        self.opened.append(super().client(**options))
        return self.opened[-1]

    def hang_up(self) -> None:
        """Close every connection."""
        while self.opened:
            self.opened.pop().stop_channels()

    async def forget(self) -> None:
        """Leave no name in the kernel, and count from 1 again."""
        connection = self.client()
        connection.start_channels()
        await connection.wait_for_ready()
        reply = await connection.execute_interactive(_EMPTY, store_history=False)
        self.hang_up()
        if reply["content"]["status"] != "ok":
            raise RuntimeError(f"the notebooks' kernel could not be emptied: {reply['content'].get('evalue')}")


def _write_notebook(run: Path, out: Path, name: str, kernel: _Kernel) -> None:
    import jupytext
    import nbformat
    import papermill
    from jinja2 import DictLoader
    from nbconvert import HTMLExporter

    source = resources.files("depthbench.reports.notebooks").joinpath(f"{name}.py").read_text(encoding="utf-8")
    with TemporaryDirectory() as scratch:
        notebook = papermill.execute_notebook(
            jupytext.reads(source, fmt="py:percent"),
            str(Path(scratch) / f"{name}.ipynb"),
            parameters={"run": os.path.relpath(run.resolve(), out.resolve())},
            kernel_name="python3",
            cwd=str(out),
            progress_bar=False,
            extra_arguments=["--log-level=ERROR"],
            km=kernel,
        )
    del notebook.metadata["papermill"]  # it names the scratch folder
    notebook.metadata["title"] = f"depthbench {name}"
    write_atomic(out / f"{name}.ipynb", nbformat.writes(notebook).encode())  # type: ignore[no-untyped-call]
    loader = DictLoader({"offline.html.j2": OFFLINE})
    exporter = HTMLExporter(template_file="offline.html.j2", extra_loaders=[loader])  # type: ignore[no-untyped-call]
    body, _ = exporter.from_notebook_node(notebook)
    write_atomic(out / f"{name}.html", body.encode())
