"""``depthbench train`` on a user's own images: where they lie, their depth scale, and broken ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from depthbench.baselines.mobilevit import _published_name, build_mobilevit
from depthbench.suites.checkpoint import read_tensors
from depthbench.suites.cli.app import invoke
from depthbench.suites.data import open_dataset
from depthbench.suites.models import file_sha256

SHORT = ["--samples", "4", "--set", "mixture={folder: 1}", "--set", "batch=2", "--set", "threads=1"]
SMALL = [*SHORT, "--set", "stages=[{share: 1, sizes: [32x32]}]"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network net:few, and images/ with six training images and a test image in units of 0.2 mm."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEPTHBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "trained_net.py").write_text(
        "from torch import nn\n\ndef few():\n    return nn.Sequential(nn.Conv2d(3, 1, 3, padding=1), nn.Softplus())\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    rng = np.random.default_rng(0)
    for i in range(7):
        folder = tmp_path / "images" / ("test" if i == 6 else "train")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8)).save(folder / f"{i}.jpg")
        Image.fromarray(rng.integers(4000, 12000, (48, 64)).astype(np.uint16)).save(folder / f"{i}.png")
    return tmp_path


def train(capsys: pytest.CaptureFixture[str], out: str, *words: str) -> tuple[int, list[str]]:
    """Exit code, and what is said on stderr by this program."""
    code = invoke(["train", "trained_net:few", "--out", out, *SMALL, *words, "--json"])
    captured = capsys.readouterr()
    if code == 0:
        assert json.loads(captured.out)["samples"] == 4
    return code, [line for line in captured.err.splitlines() if line.startswith(("depthbench: ", "left out: "))]


def test_where_the_images_are_and_in_what_units(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(capsys, "out") == (2, ["depthbench: folder: say where the images are (--data-root)"])
    root = ("--data-root", "folder=images")
    assert train(capsys, "out", *root, "--depth-scale", "folder=5000") == (0, [])
    metadata = read_tensors(place / "out" / "weights.safetensors")[1]
    scaled = open_dataset("folder", "train", root=place / "images", depth_scale=5000)
    assert metadata["data"] == {"folder": scaled.digest}
    code, said = train(capsys, "out", *root)  # another scale is another training
    assert (code, len(said)) == (2, 1)


def test_broken_images(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "images" / "train" / "2.png").write_bytes(b"")
    root = ("--data-root", "folder=images")
    assert train(capsys, "out", *root) == (2, ["depthbench: images/train/2.png: not an image"])
    said = "images/train/2.png: not an image"
    assert train(capsys, "out2", *root, "--skip-broken", "1") == (0, [f"left out: {said}"])
    assert read_tensors(place / "out2" / "weights.safetensors")[1]["skipped"] == [said]


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (
            ("--data-root", "images"),
            "--data-root images: not of the form NAME=FOLDER, for example --data-root folder=FOLDER",
        ),
        (("--data-root", "floder=images"), "unknown data set 'floder'; did you mean folder?"),
        (("--data-root", "rooms=images"), "--data-root rooms=images: rooms is rendered here, it has no files"),
        (("--data-root", "nyu-bts=x"), "--data-root, --depth-scale: nyu-bts is not in the mixture (folder)"),
        (("--data-root", "folder=a", "--data-root", "folder=b"), "--data-root: folder is given twice"),
        (("--depth-scale", "folder=mm"), "--depth-scale folder=mm: 'mm' is not a number"),
        (("--data-root", "folder=images", "--depth-scale", "folder=-1"), "depth scale -1.0 must be a number above 0"),
        (("--data-root", "folder=images", "--depth-scale", "folder=inf"), "depth scale inf must be a number above 0"),
        (("--set", "loss={silog"), "--set loss={silog: '{silog' is not YAML ("),
        (("--skip-broken", "-1"), "Invalid value for '--skip-broken'"),
    ],
)
@pytest.mark.usefixtures("place")
def test_bad_input(words: tuple[str, ...], fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = train(capsys, "out", *words)
    assert (code, len(said)) == (2, 1)
    assert fault in said[0]


NETWORKS = """
from torch import nn
from depthbench.baselines.fastdepth import build_fastdepth

def few():
    return nn.Sequential(nn.Conv2d(3, 1, 3, padding=1), nn.Softplus())

def others():
    return nn.Sequential(nn.Conv2d(3, 1, 3, padding=1), nn.ReLU())

def wider():
    return nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.Conv2d(2, 1, 1), nn.Softplus())

def flat():
    return nn.Sequential(*few(), nn.Flatten(1, 2))

def half():
    return nn.Sequential(*few(), nn.AvgPool2d(2))

class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = few()

    def forward(self, rgb):
        return self.network(rgb), None

def several():
    return Several()

def bounded():
    return build_fastdepth("fastdepth-pruned")
"""


@pytest.mark.parametrize("other", ["others", "wider"])
def test_another_network_does_not_go_on_in_the_same_folder(
    other: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "several_nets.py").write_text(NETWORKS)
    words = ("--out", "out", *SMALL, "--data-root", "folder=images")
    assert invoke(["train", "several_nets:few", *words]) == 0
    written = (place / "out" / "weights.safetensors").read_bytes()
    capsys.readouterr()
    assert invoke(["train", f"several_nets:{other}", *words]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith(
        "checkpoint.safetensors: a training that differs in the model: use another folder or delete it"
    )
    assert (place / "out" / "weights.safetensors").read_bytes() == written


@pytest.mark.parametrize(
    ("network", "words", "fault"),
    [
        ("flat", (), "the network gives (2, 32, 32) for images (2, 3, 32, 32); expected depth (2, 1, 32, 32)"),
        ("half", (), "the network gives (2, 1, 16, 16) for images (2, 3, 32, 32); expected depth (2, 1, 32, 32)"),
        ("several", (), "the network gives a tuple for images (2, 3, 32, 32); expected depth (2, 1, 32, 32)"),
        (
            "bounded",
            ("--set", "max_depth=80"),
            "max_depth: 80 m is beyond the 10 m that this network can give; build it",
        ),
    ],
)
def test_networks_that_cannot_learn_this(
    network: str, words: tuple[str, ...], fault: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "several_nets.py").write_text(NETWORKS)
    command = ["train", f"several_nets:{network}", "--out", "out", *SMALL, "--data-root", "folder=images", *words]
    assert invoke(command) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"depthbench: {fault}")
    assert not (place / "out" / "weights.safetensors").exists()


def test_without_real_images_the_way_without_them_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DEPTHBENCH_DATA", raising=False)
    assert invoke(["train", "tst-t", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "nyu-labeled: set DEPTHBENCH_DATA" in said
    assert said.endswith("or train on rendered rooms alone: --set 'mixture={rooms: 1}'\n")
    assert not (tmp_path / "out").exists()


def test_a_published_encoder_is_where_training_starts(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(3)
    published = build_mobilevit("mobilevit-xxs").encoder.state_dict()
    save_file(
        {_published_name(name): value for name, value in published.items()}, "model.safetensors", {"format": "pt"}
    )
    data = ["--data-root", f"folder={place / 'images'}", *SMALL, "--set", "lr=1e-9", "--set", "ema=0"]
    assert invoke(["train", "mobilevit-xxs", "--encoder", "model.safetensors", "--out", "out", *data]) == 0
    tensors, metadata = read_tensors(Path("out/weights.safetensors"))
    assert (metadata["encoder"], metadata["start"]) == ("model.safetensors", file_sha256(Path("model.safetensors")))
    weight = published["stages.0.0.expand.conv.weight"]
    assert torch.allclose(tensors["encoder.stages.0.0.expand.conv.weight"].float(), weight, atol=1e-3)

    for words in (["tst-t"], ["mobilevit-xxs", "--weights", "out/weights.safetensors"]):
        capsys.readouterr()
        assert invoke(["train", *words, "--encoder", "model.safetensors", "--out", "new", *data]) == 2
        assert "--encoder model.safetensors: is for a MobileViT of the catalogue" in capsys.readouterr().err
    Path("model.safetensors").write_bytes(b"none")
    assert invoke(["train", "mobilevit-xxs", "--encoder", "model.safetensors", "--out", "new", *data]) == 2
    assert "model.safetensors: not a readable safetensors file" in capsys.readouterr().err
