"""What do the INT8 forms execute, lose and gain? Real networks, real images, this CPU on one thread. Not a test.

    python tests/benchmarks/quantizing.py forms tst-s fastdepth mobilevit-xxs --out forms.json
                        for every model and each of int8, int8-full, int8-nncf, int8-mixed: the share of convolution and matrix
                        MACs that ONNX Runtime executes in INT8 (at least 90 % for int8-full and int8-nncf?), SQNR against
                        FP32 (at least 20 dB for int8-mixed?), δ1 and RMSE beside FP32 (at most 0.01 of δ1 for int8-mixed?)
    python tests/benchmarks/quantizing.py speed --out speed.json
                        the claims of speed: FP32 and INT8 interleaved, all graph optimizations, the ratio of latencies with its
                        95 % interval, RMSE of both on the same images; where a claim does not hold, what `explain` says
    python tests/benchmarks/quantizing.py speed --child prune50-fastdepth/weights.safetensors
                        the same with a child of FastDepth that `depthbench train --recipe prune50` wrote, not a shipped one

``--data``, ``--images``, ``--size``: the test images; the files are calibrated on the calibration split of the same data.
Exit code 1 when a bound does not hold. Minutes a model on one core; what was made once is kept in the cache.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from depthbench.compression.executed import executed, outputs, sqnr_db
from depthbench.compression.precision_steps import PRECISION_STEPS
from depthbench.compression.recipes import RECIPES
from depthbench.compression.shapes import shape_like
from depthbench.reports.stats import paired_difference
from depthbench.suites.checkpoint import read_tensors
from depthbench.suites.cli.measured import comparison
from depthbench.suites.compressing import heads_after
from depthbench.suites.data import DepthDataset, dataset_info, open_dataset
from depthbench.suites.evaluate import evaluate_many
from depthbench.suites.explain import explain
from depthbench.suites.export import export_onnx
from depthbench.suites.file_context import FileContext
from depthbench.suites.models import build_model, resolve_model
from depthbench.suites.protocols import PROTOCOLS
from depthbench.suites.results import write_json
from depthbench.suites.schema import parse_size
from depthbench.suites.source import CALIBRATION_IMAGES, DataSource
from depthbench.suites.stages import ArtefactSpec, artefact
from depthbench.suites.targets import TARGETS
from depthbench.suites.targets.desktop_cpu import COMPARED, CpuSettings
from depthbench.suites.targets.measuring import Work, measure_group

FORMS = ("int8", "int8-full", "int8-nncf", "int8-mixed")
BOTH_BACK_ENDS = ("int8-full", "int8-nncf")
LEAST_SHARE = 0.9
LEAST_DB = 20.0
MOST_DELTA1_LOSS = 0.01

Size = tuple[int, int]


@dataclass(frozen=True)
class Claim:
    """A form of a model that is to be ``faster`` times as fast as its FP32, with an RMSE of at most ``rmse`` times its."""

    model: str
    recipe: str
    faster: float
    rmse: float | None = None


CLAIMS = (
    Claim("tst-s", "int8", 1.5),
    Claim("fastdepth", "int8", 1.8),
    Claim("fastdepth", "prune50-int8", 2.2, 1.05),
)


@dataclass(frozen=True)
class Accuracy:
    """δ1 and RMSE (m) of a form and of FP32 on the same images, and the paired difference in RMSE with its interval."""

    images: int
    delta1: float
    parent_delta1: float
    rmse_m: float
    parent_rmse_m: float
    difference_m: float
    difference_ci95_m: tuple[float, float]


@dataclass(frozen=True)
class Form:
    """One INT8 form of a network: what is executed in INT8, the noise it adds on the test images, its accuracy."""

    model: str
    recipe: str
    int8_macs_share: float
    int8_convolutions: int
    convolutions: int
    sqnr_db: float
    accuracy: Accuracy

    @property
    def holds(self) -> bool:
        loss = self.accuracy.parent_delta1 - self.accuracy.delta1
        if self.recipe in BOTH_BACK_ENDS:
            return self.int8_macs_share >= LEAST_SHARE
        return self.recipe != "int8-mixed" or (self.sqnr_db >= LEAST_DB and loss <= MOST_DELTA1_LOSS)


@dataclass(frozen=True)
class Speed:
    """One claim, what was measured for it, and where the time went if it does not hold."""

    claim: Claim
    latency_ms: float
    parent_latency_ms: float
    faster: float
    faster_ci95: tuple[float, float]
    control_ratio: float
    flags: list[str]
    accuracy: Accuracy
    why: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        most = self.claim.rmse
        fast = self.faster >= self.claim.faster
        return fast and (most is None or self.accuracy.rmse_m <= most * self.accuracy.parent_rmse_m)


def made(model: str, recipe: str, source: DataSource, size: Size) -> Path:
    """The file that a recipe deploys on a CPU, calibrated on the source's calibration split."""
    chosen = RECIPES[recipe]
    digest = open_dataset(source.name, "calibration", root=source.root, limit=CALIBRATION_IMAGES).digest
    calibration = None if chosen.precision["cpu"] == "fp32" else digest
    return artefact(
        ArtefactSpec(resolve_model(model), chosen, size, chosen.precision["cpu"], 17, source, calibration)
    ).path


def child_file(model: str, recipe: str, weights: Path, source: DataSource, size: Size, folder: Path) -> Path:
    """The same of a child whose weights are in a file that ``depthbench train --recipe`` wrote."""
    tensors, metadata = read_tensors(weights)
    child = shape_like(build_model(resolve_model(model)), tensors, heads_after(metadata["reports"])).eval()
    exported, out = export_onnx(child, folder / "child.onnx", size), folder / "child.int8.onnx"
    digest = open_dataset(source.name, "calibration", root=source.root, limit=CALIBRATION_IMAGES).digest
    precision = RECIPES[recipe].precision["cpu"]
    context = FileContext(source, size, digest)
    PRECISION_STEPS[precision](exported, out, context, **RECIPES[recipe].precision_options(precision))
    return out


def accuracies(
    parent: Path, forms: Sequence[Path], data: DepthDataset, source: DataSource, size: Size
) -> list[Accuracy]:
    """The accuracy of files beside that of their parent, all on the same images."""
    results = evaluate_many([(path, size) for path in (parent, *forms)], data, source.protocol, samples=1)
    before, *after = results
    found = []
    for one in after:
        mean, (low, high), count = paired_difference(one.metrics["rmse_m"], before.metrics["rmse_m"])
        ours, theirs = one.summary(), before.summary()
        rmse = ours["rmse_m"], theirs["rmse_m"]
        found.append(Accuracy(count, ours["delta1"], theirs["delta1"], *rmse, mean, (low, high)))
    return found


def forms(
    model: str, source: DataSource, data: DepthDataset, size: Size, recipes: Sequence[str] = FORMS
) -> Iterator[Form]:
    """The INT8 forms of a model on the images of ``data``."""
    parent = made(model, "fp32", source, size)
    files = [made(model, recipe, source, size) for recipe in recipes]
    protocol = PROTOCOLS[source.protocol]
    images = [protocol.prepare(data[i], size).input for i in range(len(data))]
    exact = outputs(parent, images)
    for recipe, path, accuracy in zip(recipes, files, accuracies(parent, files, data, source, size), strict=True):
        ran = executed(path)
        noise = sqnr_db(exact, outputs(path, images))
        yield Form(model, recipe, ran.int8_share, ran.int8_convolutions, ran.convolutions, noise, accuracy)


def speed(
    claim: Claim, child: Path | None, source: DataSource, data: DepthDataset, size: Size, profile: str, folder: Path
) -> Speed:
    """What a claim measures; ``child``: weights of its pruned network, the shipped ones if left out."""
    parent = made(claim.model, "fp32", source, size)
    if child is None:
        path = made(claim.model, claim.recipe, source, size)
    else:
        path = child_file(claim.model, claim.recipe, child, source, size, folder)
    [accuracy] = accuracies(parent, [path], data, source, size)
    work = [Work(parent, "fp32", size), Work(path, "int8", size)]
    first, second = measure_group(TARGETS["desktop-cpu"], work, profile, settings=CpuSettings(1), processes=COMPARED)
    assert first.latency is not None, first.reason
    assert second.latency is not None, second.reason
    timed = comparison(first.latency, second.latency)
    result = Speed(
        claim,
        timed["against_median_ms"],
        float(np.median(first.latency.samples_ms)),
        timed["ratio"],
        tuple(timed["ratio_ci95"]),
        timed["control_ratio"],
        sorted({*first.latency.flags, *second.latency.flags}),
        accuracy,
    )
    if result.holds:
        return result
    return Speed(**{**vars(result), "why": explain(parent, path, names=("fp32", claim.recipe)).sentences})


def line(result: Form | Speed) -> str:
    """A result in one line."""
    near = result.accuracy
    difference = "[{:+.4f}, {:+.4f}]".format(*near.difference_ci95_m)
    seen = (
        f"RMSE {near.rmse_m:.4f} m, FP32 {near.parent_rmse_m:.4f}, difference {near.difference_m:+.4f} {difference}; "
        f"delta1 {near.delta1:.4f}, FP32 {near.parent_delta1:.4f} ({near.images} images)"
    )
    sign = "" if result.holds else "MISSED "
    if isinstance(result, Form):
        ran = f"{result.int8_macs_share:.1%} of the MACs and {result.int8_convolutions} of {result.convolutions} convolutions"
        return f"{sign}{result.model} {result.recipe}: {ran} in INT8, {result.sqnr_db:.1f} dB; {seen}"
    low, high = result.faster_ci95
    times = f"{result.latency_ms:.2f} ms, FP32 {result.parent_latency_ms:.2f}"
    asked = f"{result.faster:.2f} [{low:.2f}, {high:.2f}] times as fast, {result.claim.faster} asked"
    why = " ".join(["", *result.why])
    return f"{sign}{result.claim.model} {result.claim.recipe}: {asked} ({times}); {seen}{why}"


def main() -> int:
    """Run one of the two; 0 when every bound holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=["forms", "speed"])
    parser.add_argument("models", nargs="*", help="of forms; of speed: only the claims of these models")
    parser.add_argument("--data", default="nyu-labeled")
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--size", type=parse_size, default=(224, 224))
    parser.add_argument("--profile", default="standard", help="of the latency: quick, standard or sustained")
    parser.add_argument(
        "--child", type=Path, metavar="WEIGHTS", help="of the pruned network, in place of the shipped ones"
    )
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    source = DataSource(asked.data, dataset_info(asked.data).protocol)
    data = open_dataset(asked.data, "test", limit=asked.images)
    results: list[Form | Speed] = []

    def keep(result: Form | Speed) -> None:
        print(line(result), flush=True)
        results.append(result)
        if asked.out:
            rows: list[dict[str, Any]] = [{**asdict(one), "holds": one.holds} for one in results]
            write_json(asked.out, {"data": asked.data, "images": asked.images, "results": rows})

    with TemporaryDirectory() as folder:
        if asked.what == "forms":
            for model in asked.models or ("tst-s", "fastdepth", "mobilevit-xxs"):
                for form in forms(model, source, data, asked.size):
                    keep(form)
        else:
            for claim in CLAIMS:
                pruned = bool(RECIPES[claim.recipe].steps)
                if not asked.models or claim.model in asked.models:
                    child = asked.child if pruned else None
                    keep(speed(claim, child, source, data, asked.size, asked.profile, Path(folder)))
    return 0 if all(result.holds for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
