"""Shared test data: the reference outputs in ``tests/data`` and the seeded networks that they were made with."""

import csv
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle

from no_time_to_train import ReferenceSegmenter, Settings
from no_time_to_train.cli import main
from no_time_to_train.demo.scenes import NOVEL_CLASSES, draw_scene
from no_time_to_train.networks.build import build_sam2, build_vit
from tests.seeded_weights import seeded_state_dict

DATA = Path(__file__).parent / "data"
Checkpoints = tuple[Path, Path]
#: The types of fixtures: ``arguments``, ``command`` and ``refusal``, and pytest's ``capsys`` and ``monkeypatch``.
Arguments = Callable[..., list[str]]
Command = Callable[..., "subprocess.CompletedProcess[str]"]
Refusal = Callable[..., str]
Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


def nano_segmenter(points_per_side: int = 8, **settings: Any) -> ReferenceSegmenter:
    """The trained nano networks, without references."""
    settings = {"points_per_side": points_per_side, **settings}
    return ReferenceSegmenter.from_pretrained("nano", device="cpu", settings=Settings(**settings))


def save_seeded_checkpoints(folder: Path, sam2: str = "sam2_hiera_t", dinov2: str = "dinov2_small") -> Checkpoints:
    """Write checkpoints in the official formats with weights that depend on names, shapes and seed 0 only."""
    sam2_path, dinov2_path = folder / f"{sam2}.pt", folder / f"{dinov2}.pth"
    shapes = {name: value.shape for name, value in build_sam2(sam2).state_dict().items()}
    torch.save({"model": seeded_state_dict(shapes, 0)}, sam2_path)
    vit = build_vit(dinov2)
    shapes = {name: value.shape for name, value in vit.state_dict().items()}
    shapes["mask_token"] = torch.Size([1, vit.embed_dim])  # the official checkpoints have it
    torch.save(seeded_state_dict(shapes, 0), dinov2_path)
    return sam2_path, dinov2_path


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """Seeded SAM 2 tiny and DINOv2 small, as (SAM 2's checkpoint, DINOv2's checkpoint)."""
    return save_seeded_checkpoints(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="session")
def nano_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """Seeded networks of the nano shapes, which take a fraction of a second an image."""
    return save_seeded_checkpoints(tmp_path_factory.mktemp("checkpoints"), "sam2_nano", "dinov2_nano")


@pytest.fixture
def segmenter() -> ReferenceSegmenter:
    """The trained nano networks with an empty memory. To build them takes a tenth of a second."""
    return nano_segmenter()


class Photo(NamedTuple):
    """A drawn picture and the mask, bool [H, W], of one object in it; both also as files."""

    path: Path
    mask_path: Path
    mask: NDArray[np.bool_]

    def reference(self, label: str = "thing") -> str:
        """The object as a value of ``--reference``."""
        return f"{label}:{self.path}:mask={self.mask_path}"


def write_picture(pixels: NDArray[Any], *paths: Path) -> None:
    """Write a picture or a mask into files of several names, and make their folders."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Photo:
    folder = tmp_path_factory.mktemp("photo")
    scene = draw_scene(np.random.default_rng(0), NOVEL_CLASSES, (90, 120))
    mask = scene.masks[scene.masks.sum(axis=(1, 2)).argmax()]
    write_picture(scene.image, folder / "photo.png")
    write_picture(mask, folder / "photo_mask.png")
    return Photo(folder / "photo.png", folder / "photo_mask.png", mask)


def model_options(keys: Mapping[str, object]) -> list[str]:
    """The options of a stage that set keys of the model."""
    return [word for key, value in keys.items() for word in (f"--model.init_args.{key}", str(value))]


def stage_arguments(
    test_mode: str, checkpoints: Checkpoints, save_dir: Path, keys: Mapping[str, object] | None = None
) -> list[str]:
    """The command line of a stage on the test data with networks of the nano shapes, and with other keys."""
    options = {
        "test_mode": test_mode,
        "model_cfg.sam2_cfg_file": "sam2_nano",
        "model_cfg.sam2_ckpt_path": checkpoints[0],
        "model_cfg.encoder_cfg.name": "dinov2_nano",
        "model_cfg.encoder_cfg.img_size": 336,
        "model_cfg.encoder_ckpt_path": checkpoints[1],
        "model_cfg.sam2_infer_cfgs.points_per_side": 8,
        "dataset_cfgs.fill_memory.root": DATA / "images",
        "dataset_cfgs.fill_memory.json_file": DATA / "references.json",
        "dataset_cfgs.fill_memory.memory_pkl": DATA / "references.pkl",
        "dataset_cfgs.test.root": DATA / "images",
        "dataset_cfgs.test.json_file": DATA / "targets.json",
        "dataset_cfgs.test.image_size": 256,
        "data_load_cfgs.workers": 0,
        **(keys or {}),
    }
    trainer = ["--trainer.logger.save_dir", str(save_dir), "--trainer.accelerator", "cpu"]
    return [
        "test",
        "--config",
        str(DATA.parents[1] / "configs" / "custom_sam2l.yaml"),
        *model_options(options),
        *trainer,
    ]


@pytest.fixture(scope="session")
def memory(nano_checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A post-processed memory of the test data's references, by the stages with networks of the nano shapes."""
    folder = tmp_path_factory.mktemp("memory")
    filled, processed = folder / "memory.ckpt", folder / "memory_postprocessed.ckpt"
    main([*stage_arguments("fill_memory", nano_checkpoints, folder), "--out_path", str(filled)])
    paths = ["--ckpt_path", str(filled), "--out_path", str(processed)]
    main([*stage_arguments("postprocess_memory", nano_checkpoints, folder), *paths])
    return processed


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What to call in a shell instead of ``no-time-to-train``: the modules are imported once for all calls."""
    from tests.zygote import zygote  # Windows cannot fork

    with zygote(tmp_path_factory.mktemp("zygote")) as line:
        yield line


@pytest.fixture(scope="session")
def command(program: str) -> Command:
    """Runs ``no-time-to-train`` with arguments in a folder; keywords are added to the environment."""

    def run(words: Sequence[str], folder: Path | None = None, **environment: str) -> "subprocess.CompletedProcess[str]":
        line, variables = [*program.split(), *words], {**os.environ, **environment}
        return subprocess.run(line, cwd=folder, env=variables, capture_output=True, text=True, timeout=300)

    return run


@pytest.fixture
def arguments(memory: Path, nano_checkpoints: Checkpoints) -> Arguments:
    """The command line of the test stage on the test data, for the folder of its results and ``sam2_infer_cfgs``."""

    def of(folder: Path, *options: object, memory: Path = memory, **settings: object) -> list[str]:
        keys = {f"model_cfg.sam2_infer_cfgs.{key}": value for key, value in settings.items()}
        return [
            *stage_arguments("test", nano_checkpoints, folder, keys),
            "--ckpt_path",
            str(memory),
            *map(str, options),
        ]

    return of


@pytest.fixture(scope="session")
def nano_options(nano_checkpoints: Checkpoints) -> list[str]:
    """The options of ``segment`` that choose the seeded nano networks, and few points."""
    networks = ["--sam2", str(nano_checkpoints[0]), "--dinov2", str(nano_checkpoints[1]), "--device", "cpu"]
    return [*networks, "--points-per-side", "8"]


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Refusal:
    """Runs a command that must be refused, and returns its only line that begins with ``error: ``."""

    def refused(*arguments: object) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([*map(str, arguments)])
        printed = capsys.readouterr().err
        assert ended.value.code == 2, printed
        assert "Traceback" not in printed
        (line,) = [line for line in printed.splitlines() if line.startswith("error: ")]
        return line

    return refused


def results(folder: Path) -> bytes:
    return (folder / "results.json").read_bytes()


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())


def gallery_data(page: Path) -> Any:
    """What a gallery shows."""
    _, _, rest = page.read_text(encoding="utf-8").partition('id="data">')
    return json.loads(rest.partition("</script>")[0])


def recorded(folder: Path, stage: str = "test") -> dict[str, Any]:
    """What ``run.json`` says of a stage."""
    return json.loads((folder / "run.json").read_text())[stage]


@pytest.fixture(scope="session")
def golden() -> dict[str, Any]:
    """The arrays of ``golden.npz``."""
    return dict(np.load(DATA / "expected" / "golden.npz"))


@pytest.fixture(scope="session")
def golden_results() -> dict[str, list[dict[str, Any]]]:
    """The expected COCO results: from stand-in proposals, and end to end."""
    names = ("results", "results_end_to_end")
    return {name: json.loads((DATA / "expected" / f"{name}.json").read_text()) for name in names}


def assert_same_results(results: list[dict[str, Any]], expected: list[dict[str, Any]], atol: float = 1e-4) -> None:
    """The same detections in the same order of score; those whose scores are closer than ``atol`` may swap."""
    assert len(results) == len(expected)
    for image_id in {record["image_id"] for record in expected}:
        ours = [record for record in results if record["image_id"] == image_id]
        theirs = [record for record in expected if record["image_id"] == image_id]
        np.testing.assert_allclose([r["score"] for r in ours], [r["score"] for r in theirs], atol=atol)
        for record in theirs:
            equal = [
                other
                for other in ours
                if abs(other["score"] - record["score"]) <= atol
                and other["category_id"] == record["category_id"]
                and np.array_equal(other["bbox"], record["bbox"])
                and rle.iou([other["segmentation"]], [record["segmentation"]], [0])[0, 0] > 0.999
            ]
            assert equal, f"image {image_id}: no detection equals {record}"
            ours.remove(equal[0])
