"""Parts of the method from outside the package: they run as docs/extending.md says, and only where they are allowed."""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from PIL import Image

from no_time_to_train import ReferenceSegmenter, Settings, UserError, plugins
from no_time_to_train.cli import main
from tests.conftest import Arguments, Patch, Refusal
from tests.test_docs import ROOT, draw_example, write_own_parts


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: Patch) -> Iterator[Path]:
    """A current folder with the modules of docs/extending.md, of which none is allowed yet."""
    write_own_parts(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for module in tmp_path.glob("*.py"):
        monkeypatch.delitem(sys.modules, module.stem, raising=False)
    yield tmp_path
    plugins.ALLOWED.clear()


def test_the_page_runs_as_written(folder: Path, monkeypatch: Patch) -> None:
    draw_example(folder)
    plugins.allow("my_parts")
    exec(write_own_parts(folder), names := {"__name__": "example"})
    assert len(names["found"]) > 0
    page = (ROOT / "docs" / "extending.md").read_text()
    for command in re.findall(r"^no-time-to-train (segment (?:.*\\\n)*.*)", page, re.MULTILINE):
        main(command.replace("\\\n", " ").split())
    own = json.loads((folder / "own" / "results.json").read_text())
    assert own
    record = json.loads((folder / "out" / "run.json").read_text())["segment"]
    assert record["settings"]["merging"] == "my_parts:merge"
    assert record["plugins"].keys() >= {"my_parts"}


def test_each_own_part_is_used_and_changes_the_results(arguments: Arguments, folder: Path) -> None:
    main(arguments(folder / "paper"))
    paper = (folder / "paper" / "results.json").read_bytes()
    for key, part in (("score", "score"), ("suppression", "suppress"), ("merging", "merge")):
        main([*arguments(folder / key, **{key: f"my_parts:{part}"}), "--plugin", "my_parts"])
        assert (folder / key / "results.json").read_bytes() != paper


def test_own_proposers_encoders_and_protocols_run_in_all_stages(arguments: Arguments, folder: Path) -> None:
    Path("own.yaml").write_text(
        "model:\n  init_args:\n    model_cfg:\n      sam2_cfg_file: my_proposer:Proposer\n      sam2_ckpt_path: null\n"
        "      encoder_cfg: {name: 'my_encoder:Encoder', img_size: null}\n      encoder_ckpt_path: null\n"
        "    dataset_cfgs: {test: {protocol: 'my_protocol:count_error', image_size: null}}\n"
    )
    own = ["--config", "own.yaml"]
    own += [word for name in ("my_proposer", "my_encoder", "my_protocol") for word in ("--plugin", name)]

    def run(mode: str, *options: str) -> None:
        main([*arguments(folder / "out", *own, "--model.test_mode", mode), *options])

    run("fill_memory", "--out_path", "1.memory")
    run("postprocess_memory", "--ckpt_path", "1.memory", "--out_path", "2.memory")
    run("test", "--ckpt_path", "2.memory", "--model.cache_dir=cache")
    assert json.loads((folder / "out" / "results.json").read_text())
    assert json.loads((folder / "out" / "metrics.json").read_text())["count"]["error"] >= 0
    record = json.loads((folder / "out" / "run.json").read_text())["test"]
    assert record["plugins"].keys() == {"my_proposer", "my_encoder", "my_protocol"}
    entries = set((folder / "cache").rglob("*.proposals"))
    Path("my_proposer.py").write_text(f"{Path('my_proposer.py').read_text()}\n# changed\n")
    run("test", "--ckpt_path", "2.memory", "--model.cache_dir=cache")
    assert len(set((folder / "cache").rglob("*.proposals"))) == 2 * len(entries)


@pytest.mark.parametrize("key", ["sam2_infer_cfgs.merging", "sam2_cfg_file", "encoder_cfg.name"])
def test_configurations_alone_run_no_code(arguments: Arguments, folder: Path, refusal: Refusal, key: str) -> None:
    config = folder / "config.yaml"
    outer, _, inner = key.partition(".")
    value = f"{{{inner}: 'os:system'}}" if inner else "'os:system'"
    config.write_text(f"model: {{init_args: {{model_cfg: {{{outer}: {value}}}}}}}\n")
    given = f"model.init_args.model_cfg.{key}"  # the command line would override the file
    words = arguments(folder / "out", "--config", config)
    if f"--{given}" in words:
        del words[(place := words.index(f"--{given}")) : place + 2]
    assert refusal(*words) == "error: os:system is code, which only runs where --plugin os allows it"


def test_mistakes_with_own_parts_are_one_line(folder: Path, refusal: Refusal) -> None:
    assert "no 'mod'; did you mean 'mode'?" in refusal("segment", "--plugin=my_parts", "--mode", "my_parts:mod")
    assert "--plugin my_part cannot be imported: ModuleNotFoundError" in refusal("app", "--plugin", "my_part")
    Path("broken.py").write_text("1 / 0")
    assert "--plugin broken cannot be imported: ZeroDivisionError" in refusal("app", "--plugin", "broken")
    Image.new("RGB", (8, 8)).save("a.png")
    own = ("--plugin=my_proposer", "--sam2=my_proposer:Proposer", "--dinov2=nano", "--prompts=guided")
    line = refusal("segment", *own, "--reference=boat:a.png", "--images=a.png", "--out=out")
    assert "prompts guided need SAM 2, and my_proposer:Proposer takes its place: give prompts grid" in line
    with pytest.raises(UserError, match="prompts guided need SAM 2"):
        ReferenceSegmenter.from_pretrained("my_proposer:Proposer", "nano", settings=Settings(prompts="guided"))
    with pytest.raises(UserError, match="has no name in its module"):
        Settings(merging=lambda *_: None)
    with pytest.raises(UserError, match="merging must be one of soft"):
        Settings(merging="sotf")


def test_settings_with_a_function_are_values_of_json() -> None:
    settings = Settings(merging=draw_example)
    assert json.loads(json.dumps(asdict(settings)))["merging"] == "tests.test_docs:draw_example"
