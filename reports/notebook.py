"""The run as an executed notebook: jupytext source, run by papermill, converted by nbconvert. Works offline."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory

from depthbench.suites.results import write_atomic

OFFLINE = """{% extends "index.html.j2" %}
{% block html_head_js %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
"""
"""nbconvert's own page without the scripts that it would have a browser fetch; nothing here needs them."""


def write_notebook(run: Path, out: Path, name: str = "overview") -> tuple[Path, Path]:
    """Execute a notebook of this package on ``run`` and write ``<name>.ipynb`` and ``<name>.html`` into ``out``.

    The kernel is this interpreter's own. The notebook refers to the run by a path relative to ``out``, so that a run
    and its report can be moved together.
    """
    import jupytext
    import nbformat
    import papermill
    from jinja2 import DictLoader
    from nbconvert import HTMLExporter

    source = resources.files("depthbench.reports.notebooks").joinpath(f"{name}.py").read_text(encoding="utf-8")
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as scratch:
        notebook = papermill.execute_notebook(
            jupytext.reads(source, fmt="py:percent"),
            str(Path(scratch) / f"{name}.ipynb"),
            parameters={"run": os.path.relpath(run.resolve(), out.resolve())},
            kernel_name="python3",
            cwd=str(out),
            progress_bar=False,
            extra_arguments=["--log-level=ERROR"],
        )
    del notebook.metadata["papermill"]  # it names the scratch folder
    notebook.metadata["title"] = f"depthbench {name}"
    ipynb, html = out / f"{name}.ipynb", out / f"{name}.html"
    write_atomic(ipynb, nbformat.writes(notebook).encode())  # type: ignore[no-untyped-call]
    loader = DictLoader({"offline.html.j2": OFFLINE})
    exporter = HTMLExporter(template_file="offline.html.j2", extra_loaders=[loader])  # type: ignore[no-untyped-call]
    body, _ = exporter.from_notebook_node(notebook)
    write_atomic(html, body.encode())
    return ipynb, html
