"""Every mistake ends in one line that names the file, id or key, exit status 2, no traceback and no partial output."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from no_time_to_train.cli import main
from no_time_to_train.data.images import read_rgb
from no_time_to_train.errors import UserError
from tests.conftest import DATA, stage_arguments

Edit = Callable[[dict[str, Any]], None]


@pytest.fixture
def error_of(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """A function that runs a command that must fail, and returns its error message."""

    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as exit_:
            main(list(arguments))
        assert exit_.value.code == 2
        message = capsys.readouterr().err.strip().splitlines()[-1]
        assert message.startswith("error: ")
        assert "Traceback" not in message
        return message

    return run


@pytest.fixture
def edited(tmp_path: Path) -> Callable[[str, Edit], Path]:
    """A function that copies a JSON file of the test data and edits the copy."""

    def copy(name: str, edit: Edit) -> Path:
        data = json.loads((DATA / name).read_text())
        edit(data)
        path = tmp_path / name
        path.write_text(json.dumps(data))
        return path

    return copy


def fill(tmp_path: Path, nano_checkpoints: tuple[Path, Path], *options: str) -> list[str]:
    """The command line of ``fill_memory``."""
    return [
        *stage_arguments("fill_memory", nano_checkpoints, tmp_path),
        *("--out_path", str(tmp_path / "memory.ckpt")),
        *options,
    ]


FILL = "--model.init_args.dataset_cfgs.fill_memory."


def references_file(tmp_path: Path, content: object) -> str:
    """Write a reference set and return its path."""
    path = tmp_path / "refs.json"
    path.write_text(json.dumps(content))
    return str(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param([f"{FILL}no_such_key", "1"], "no_such_key", id="a config key that does not exist"),
        pytest.param(
            [f"{FILL}json_file", "nowhere.json"], "file not found: nowhere.json", id="a missing annotation file"
        ),
        pytest.param([f"{FILL}memory_pkl", "nowhere.pkl"], "nowhere.pkl", id="a missing reference set"),
        pytest.param([f"{FILL}root", "nowhere"], "image not found: nowhere", id="a missing image"),
        pytest.param([f"{FILL}cat_names", "disk,star"], "no class 'disk'; did you mean 'disc'", id="an unknown class"),
        pytest.param([f"{FILL}class_split", "few_shot_classe"], "'few_shot_classes'", id="an unknown class split"),
        pytest.param(
            ["--model.init_args.model_cfg.memory_bank_cfg.category_num", "4"],
            "3 classes",
            id="a wrong number of classes",
        ),
        pytest.param(
            ["--model.init_args.model_cfg.encoder_ckpt_path", "nowhere.pth"], "nowhere.pth", id="a missing checkpoint"
        ),
        pytest.param(
            ["--model.init_args.model_cfg.encoder_cfg.name", "dinov3"], "dinov2_small", id="an unknown encoder"
        ),
    ],
)
def test_fill_memory_names_the_mistake(
    error_of: Callable[..., str], tmp_path: Path, nano_checkpoints: tuple[Path, Path], options: list[str], message: str
) -> None:
    assert message in error_of(*fill(tmp_path, nano_checkpoints, *options))
    assert {path.name for path in tmp_path.iterdir()} <= {"run.json"}, "only the record of the failure is left"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        pytest.param({"img_id": 999, "ann_ids": [1]}, "no image with id 999", id="missing image"),
        pytest.param({"img_id": 101, "ann_ids": [999]}, "no annotation with id 999", id="missing annotation"),
        pytest.param(
            {"img_id": 102, "ann_ids": [1]}, "annotation 1 lies in image 101", id="annotation of another image"
        ),
        pytest.param(
            {"img_id": 101, "ann_ids": [2]}, "annotation 2 is of category 11, not 3", id="annotation of another class"
        ),
        pytest.param({"img_id": 101}, "ann_ids", id="no annotations"),
    ],
)
def test_a_wrong_entry_of_a_reference_set_is_named(
    error_of: Callable[..., str],
    tmp_path: Path,
    nano_checkpoints: tuple[Path, Path],
    entry: dict[str, Any],
    message: str,
) -> None:
    references = references_file(tmp_path, {"3": [entry]})
    options = (f"{FILL}memory_pkl", references, f"{FILL}cat_names", "disc", "--n_shot", "1")
    assert message in error_of(*fill(tmp_path, nano_checkpoints, *options))


def test_a_reference_with_an_empty_mask_is_named(
    error_of: Callable[..., str],
    edited: Callable[[str, Edit], Path],
    tmp_path: Path,
    nano_checkpoints: tuple[Path, Path],
) -> None:
    def empty(data: dict[str, Any]) -> None:
        data["annotations"][0]["segmentation"] = [[1, 1, 1, 1, 1, 1]]

    json_file = edited("references.json", empty)
    assert "annotation 1 of image 101" in error_of(
        *fill(tmp_path, nano_checkpoints, f"{FILL}json_file", str(json_file))
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lightning_logs", "references.json", "run.json"]


@pytest.mark.parametrize("content", ["[]", '{"images": 3}', '{"images": [{"id": 1}]}', '{"images": [', "\x00"])
def test_a_file_that_is_not_coco_is_named(
    error_of: Callable[..., str], tmp_path: Path, nano_checkpoints: tuple[Path, Path], content: str
) -> None:
    path = tmp_path / "annotations.json"
    path.write_text(content)
    assert str(path) in error_of(*fill(tmp_path, nano_checkpoints, f"{FILL}json_file", str(path)))


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(
    error_of: Callable[..., str], tmp_path: Path, nano_checkpoints: tuple[Path, Path]
) -> None:
    class Exploit:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    path = tmp_path / "refs.pkl"
    path.write_bytes(pickle.dumps({3: [Exploit()]}))
    assert "plain data only" in error_of(*fill(tmp_path, nano_checkpoints, f"{FILL}memory_pkl", str(path)))
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_of_another_network_names_file_and_key(
    error_of: Callable[..., str], tmp_path: Path, checkpoints: tuple[Path, Path]
) -> None:
    other = "--model.init_args.model_cfg.encoder_cfg.name", "dinov2_small_reg"
    message = error_of(*fill(tmp_path, checkpoints, *other))
    assert str(checkpoints[1]) in message
    assert "'reg_token'" in message


@pytest.fixture(scope="module")
def memory(nano_checkpoints: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A post-processed memory."""
    folder = tmp_path_factory.mktemp("memory")
    filled, processed = str(folder / "memory.ckpt"), str(folder / "memory_postprocessed.ckpt")
    main([*stage_arguments("fill_memory", nano_checkpoints, folder), "--out_path", filled])
    main([
        *stage_arguments("postprocess_memory", nano_checkpoints, folder), "--ckpt_path", filled, "--out_path", processed
    ])  # fmt: skip
    return folder


TEST = "--model.init_args.dataset_cfgs.test."


def detect(tmp_path: Path, nano_checkpoints: tuple[Path, Path], memory: Path, *options: str) -> list[str]:
    """The command line of the test stage."""
    return [*stage_arguments("test", nano_checkpoints, tmp_path), "--ckpt_path", str(memory), *options]


def test_a_memory_that_does_not_fit_is_refused_and_the_difference_is_named(
    error_of: Callable[..., str], tmp_path: Path, nano_checkpoints: tuple[Path, Path], memory: Path
) -> None:
    processed = memory / "memory_postprocessed.ckpt"
    assert "not post-processed" in error_of(*detect(tmp_path, nano_checkpoints, memory / "memory.ckpt"))
    assert "only the memory has 'disc' (id 3)" in error_of(
        *detect(tmp_path, nano_checkpoints, processed, f"{TEST}cat_names", "star,leaf")
    )
    assert "encoder 'dinov2_nano', this run has 'dinov2_base'" in error_of(
        *detect(tmp_path, nano_checkpoints, processed, "--model.init_args.model_cfg.encoder_cfg.name", "dinov2_base")
    )
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_truncated_target_stops_the_run_or_is_skipped(
    error_of: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
    edited: Callable[[str, Edit], Path],
    tmp_path: Path,
    nano_checkpoints: tuple[Path, Path],
    memory: Path,
) -> None:
    def keep_one(data: dict[str, Any]) -> None:
        data["images"] = data["images"][:1]
        data["annotations"] = [a for a in data["annotations"] if a["image_id"] == data["images"][0]["id"]]

    json_file = edited("targets.json", keep_one)
    (image,) = json.loads(json_file.read_text())["images"]
    content = (DATA / "images" / image["file_name"]).read_bytes()
    (tmp_path / image["file_name"]).write_bytes(content[: len(content) // 2])
    options = (f"{TEST}json_file", str(json_file), f"{TEST}root", str(tmp_path))
    arguments = detect(tmp_path, nano_checkpoints, memory / "memory_postprocessed.ckpt", *options)

    assert image["file_name"] in error_of(*arguments)
    assert not (tmp_path / "results.json").exists()

    main([*arguments, "--on_bad_image", "skip"])
    assert json.loads((tmp_path / "results.json").read_text()) == []
    assert "1 images were skipped" in capsys.readouterr().out


def test_a_file_that_is_not_a_memory_is_named(
    error_of: Callable[..., str], tmp_path: Path, nano_checkpoints: tuple[Path, Path]
) -> None:
    assert str(nano_checkpoints[0]) in error_of(*detect(tmp_path, nano_checkpoints, nano_checkpoints[0]))
    assert "nowhere.ckpt" in error_of(*detect(tmp_path, nano_checkpoints, Path("nowhere.ckpt")))


def test_sampling_too_many_references_names_the_class(error_of: Callable[..., str], tmp_path: Path) -> None:
    options = ("--json-file", str(DATA / "references.json"), "--out-path", str(tmp_path / "refs.json"))
    assert "class 'disc'" in error_of("sample-references", "--n-shot", "5", *options)
    assert list(tmp_path.iterdir()) == []


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    with pytest.raises(UserError, match=r"a\.png cannot be read"):
        read_rgb(tmp_path / "a.png")
