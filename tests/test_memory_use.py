"""The memory that a run needs does not grow with the number of images (slow: minutes)."""

import json
from pathlib import Path
from typing import Any

import pytest

from no_time_to_train.cli import main
from no_time_to_train.pipeline.find_instances_stage import FindInstancesStage
from tests.conftest import DATA, Arguments, Patch


@pytest.mark.slow
def test_a_run_needs_no_more_memory_for_more_images(arguments: Arguments, tmp_path: Path, monkeypatch: Patch) -> None:
    images = json.loads((DATA / "targets.json").read_text())["images"]
    many = [{**images[index % len(images)], "id": index + 1} for index in range(300)]
    (tmp_path / "targets.json").write_text(json.dumps({"images": many}))
    in_use: list[int] = []  # pages, after each image
    follow = FindInstancesStage.follow

    def watched(self: FindInstancesStage, *inputs: Any) -> dict[str, Any]:
        record = follow(self, *inputs)
        in_use.append(int(Path("/proc/self/statm").read_text().split()[1]))
        return record

    monkeypatch.setattr(FindInstancesStage, "follow", watched)
    targets = ("--model.init_args.dataset_cfgs.test.json_file", tmp_path / "targets.json")
    main(arguments(tmp_path, *targets, "--model.init_args.model_cfg.test.online_vis", "True"))
    assert len(in_use) == 300
    page = 4096
    assert (max(in_use[250:]) - max(in_use[50:100])) * page < 30e6, "an image's masks take some 5 MB"
