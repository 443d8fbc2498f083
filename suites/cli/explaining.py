"""The command that says why a compressed form is, or is not, faster: explain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from depthbench.suites.cli.artefacts import Size, deployed
from depthbench.suites.cli.listing import Json
from depthbench.suites.cli.output import Stages, err, out, print_json, print_table, stages

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from depthbench.suites.explain import Explanation, Side
    from depthbench.suites.targets import Target

WHAT = (
    "An .onnx file, MODEL, MODEL:RECIPE (MODEL@RECIPE for package.module:function), or trtexec's layer profile (.json)."
)


def explain(
    parent: Annotated[str, typer.Argument(help=WHAT)],
    child: Annotated[str, typer.Argument(help="The compressed form, given the same way.")],
    target: Annotated[
        str, typer.Option(help="desktop-cpu or desktop-cpu-all (measured here), or a Jetson board (predicted).")
    ] = "desktop-cpu",
    size: Size = None,
    seconds: Annotated[float, typer.Option(min=0.2, max=600, help="Seconds of inference a file.")] = 3.0,
    image: Annotated[Path | None, typer.Option(help="A picture as the input; random numbers if left out.")] = None,
    parent_layers: Annotated[
        Path | None, typer.Option(help="trtexec's --exportLayerInfo of the parent, beside its layer profile.")
    ] = None,
    child_layers: Annotated[Path | None, typer.Option(help="The same of the child.")] = None,
    json: Json = False,
) -> None:
    """Why CHILD is, or is not, faster than PARENT: time by operator class, MACs by precision, conversions, bounds, causes."""
    profiles = [Path(name) for name in (parent, child) if name.endswith(".json")]
    if len(profiles) == 1:
        raise ValueError(f"{profiles[0]}: a layer profile of trtexec is compared with another one, not with a network")
    if not profiles and (parent_layers or child_layers):
        raise ValueError("--parent-layers and --child-layers belong to layer profiles of trtexec (.json)")
    if profiles:
        from depthbench.suites.explaining.board import trtexec_pair

        found = trtexec_pair((profiles[0], profiles[1]), (parent_layers, child_layers), (parent, child))
    else:
        found = _explained(parent, child, target, size, seconds, image)
    if json:
        print_json({"parent_model": parent, "child_model": child, **found.to_json()})
    else:
        show(found)


def _explained(
    parent: str, child: str, target: str, size: str | None, seconds: float, image: Path | None
) -> Explanation:
    from depthbench.suites import explain as explaining
    from depthbench.suites.names import lookup
    from depthbench.suites.targets import TARGETS

    chosen = lookup("target", target, TARGETS)
    with stages() as progress:
        (first, before), (second, after) = (_file(name, size, chosen, progress) for name in (parent, child))
        return explaining.explain(
            first,
            second,
            target=target,
            names=(parent, child),
            precisions=(before, after) if before and after else None,
            seconds=seconds,
            image=_image(image, first),
            progress=lambda share: progress("profiling", share, 1.0),
        )


def split_recipe(name: str) -> tuple[str, str]:
    """``MODEL``, ``MODEL:RECIPE`` or ``MODEL@RECIPE`` as model and recipe (fp32 if left out).

    A colon parts a recipe only from a catalogue name or an .onnx file: in ``package.module:function`` it is part of the name.
    """
    from depthbench.suites.models import MODELS

    if "@" in name:
        model, _, recipe = name.rpartition("@")
        return model, recipe
    model, colon, recipe = name.rpartition(":")
    if colon and (model in MODELS or model.endswith(".onnx")):
        return model, recipe
    return name, "fp32"


def _file(name: str, size: str | None, target: Target, progress: Stages) -> tuple[Path, str | None]:
    """The ONNX file of a side, and the precision that a board runs it in (None: as the file says)."""
    from depthbench.suites.export import read_onnx

    model, recipe = split_recipe(name)
    if model.endswith(".onnx") and recipe == "fp32":
        if size is not None:
            raise ValueError(f"{model}: an ONNX file has its own input size, --size {size} does not apply")
        read_onnx(Path(model))  # it is whole
        return Path(model), None
    precision = "fp32" if target.kind == "board" and recipe == "fp32" else None
    made = deployed(model, recipe, size, progress, kind=target.kind, precision=precision, opset=target.opset)
    if made.precision in target.refuses:
        raise ValueError(f"{target.name}: {target.refuses[made.precision]}")
    return made.path, "int8" if made.precision.startswith("int8") else "fp16"


def _image(path: Path | None, network: Path) -> NDArray[np.float32] | None:
    """A picture as the network's input (1, 3, H, W), values in [0, 1]."""
    if path is None:
        return None
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    from depthbench.suites.export import onnx_size

    height, width = onnx_size(network)
    try:
        with Image.open(path) as opened:
            pixels = np.asarray(opened.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path}: not a picture ({error})") from None
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], dtype=np.float32)  # (1, 3, H, W)
    return planes / np.float32(255)


def show(found: Explanation) -> None:
    """The explanation as tables, the sentences last."""
    from depthbench.suites.explaining.kernels import CLASSES

    how = {"measured": "measured", "predicted": "predicted, not measured", "trtexec": "by trtexec"}[found.child.how]
    print_table(f"Time by operator class on {found.target} ({how})", _classes(found))
    print_table("In all", [_overall("parent", found.parent), _overall("child", found.child)])
    changes = [
        {
            "layer": row["layer"],
            "class": CLASSES[row["class"]],
            "before ms": f"{row['before_ms']:.3f}",
            "after ms": f"{row['after_ms']:.3f}",
            "change": f"{row['after_ms'] - row['before_ms']:+.3f}",
        }
        for row in found.changes()
    ]
    print_table("What changed most", changes)
    if rows := found.off_grid():
        print_table(
            f"Output channels that are no multiple of {max(found.block, 8)}: {len(rows)} convolutions",
            [{**row, "class": CLASSES[row["class"]]} for row in rows[:8]],
        )
    ratio = f"kernels: {found.speedup:.2f}× as fast"
    if found.wall_speedup:
        ratio += "; wall time, in turn: {:.2f}× (95 % interval {:.2f} to {:.2f})".format(*found.wall_speedup)
    out.print(ratio)
    for note in found.notes:
        err.print(f"note: {note}")
    for sentence in found.sentences:
        out.print(sentence)


def _classes(found: Explanation) -> list[dict[str, str]]:
    from depthbench.suites.explaining.kernels import CLASSES, by_class

    before, after = by_class(found.parent.kernels), by_class(found.child.kernels)
    reached = found.child.reached()
    return [
        {
            "class": title,
            "parent ms": f"{before.get(kind, 0):.3f}",
            "child ms": f"{after.get(kind, 0):.3f}",
            "child's share": f"{after.get(kind, 0) / max(found.child.kernel_ms, 1e-12):.0%}",
            "of attainable": f"{reached[kind]:.0%}" if kind in reached and found.child.how == "measured" else "",
        }
        for kind, title in CLASSES.items()
        if kind in before or kind in after
    ]


def _overall(name: str, side: Side) -> dict[str, Any]:
    return {
        "": name,
        "kernels": len(side.kernels),
        "kernel ms": f"{side.kernel_ms:.3f}",
        "GMAC": ", ".join(f"{macs:.3f} {precision or 'unknown'}" for precision, macs in side.gmacs().items()),
        "conversions": f"{side.share(lambda kernel: kernel.is_conversion):.0%}",
        "bound by": ", ".join(f"{bound} {share:.0%}" for bound, share in side.bounds().items()),
    }
