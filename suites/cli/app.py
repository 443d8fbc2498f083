"""All commands, and how their errors reach the user."""

from __future__ import annotations

import os
from collections.abc import Sequence

import typer

from depthbench.suites.cli import (
    caching,
    clustering,
    datasets,
    deciding,
    evaluation,
    explaining,
    gating,
    inspect,
    listing,
    measuring,
    merging,
    planning,
    prediction,
    running,
    sensitivity,
    training,
)
from depthbench.suites.cli.output import err

app = typer.Typer(
    name="depthbench",
    help="Which depth network, compressed how, do I put on this device?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for function in (
    running.run,
    planning.plan,
    planning.schema,
    running.report,
    clustering.status,
    merging.merge,
    deciding.choose,
    deciding.compare,
    deciding.table,
    gating.gate,
    gating.history,
    training.train,
    sensitivity.sensitivity,
    evaluation.eval_,
    inspect.profile,
    measuring.measure,
    explaining.explain,
    prediction.predict,
    prediction.calibrate,
    listing.models,
    listing.recipes,
    listing.targets,
    listing.doctor,
):
    app.command(name=function.__name__.rstrip("_"))(function)
app.add_typer(caching.cache)
app.add_typer(clustering.cluster)
app.add_typer(datasets.app)
app.add_typer(measuring.boards)
app.add_typer(measuring.bundle)


def invoke(arguments: Sequence[str]) -> int:
    """Run a command line; its exit code. With ``DEPTHBENCH_TRACEBACK=1`` errors keep their tracebacks."""
    command = typer.main.get_command(app)
    try:
        code = command.main(args=list(arguments), prog_name="depthbench", standalone_mode=False)
    except typer.TyperException as error:
        message = " ".join(error.format_message().split())
        if message:
            _say(f"{message} (see depthbench --help)")
        return 2
    except (KeyboardInterrupt, typer.Abort):
        _say("interrupted; what was finished is kept, run the same command again to go on")
        return 130
    except (ValueError, OSError) as error:
        if os.environ.get("DEPTHBENCH_TRACEBACK"):
            raise
        _say(str(error))
        return 2
    return code if isinstance(code, int) else 0


def _say(message: str) -> None:
    err.print(f"depthbench: {message}")
