"""``benchmark``: the stages, the scores and the page on an own COCO data set, with one command."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from no_time_to_train.cli import main
from no_time_to_train.data.memory_files import load_memory
from no_time_to_train.files import read_json
from tests.conftest import DATA, gallery_data


def write_copy(path: Path, source: str, **changes: Any) -> Path:
    """A copy of an annotation file of the test data, next to a link to its images."""
    path.write_text(json.dumps({**read_json(DATA / source), **changes}))
    if not (path.parent / "images").exists():
        (path.parent / "images").symlink_to(DATA / "images")
    return path


def test_one_command_gives_memory_results_scores_and_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    references = write_copy(tmp_path / "refs.json", "references.json")
    data = read_json(DATA / "references.json")
    more = [*data["categories"], {"id": 99, "name": "unicorn"}]
    references.write_text(json.dumps({**data, "categories": more}))
    targets = write_copy(
        tmp_path / "targets.json", "targets.json", images=read_json(DATA / "targets.json")["images"][:2]
    )
    out = tmp_path / "run"
    options = ["--n-shot", "1", "--nano", "--points-per-side", "6", "--device", "cpu", "--out", str(out)]
    main(["benchmark", str(references), str(targets), *options])
    output = capsys.readouterr()
    assert load_memory(out / "memory_postprocessed.ckpt").counts.tolist() == [1, 1, 1]
    assert "unicorn" in output.err, "a class without references is named"
    assert "SEGM RESULTS:" in output.out
    metrics = read_json(out / "metrics.json")
    assert (metrics["dataset_name"], metrics["n_shot"]) == ("targets", 1)
    assert f"{100 * metrics['segm']['AP']:.1f}" in (out / "index.html").read_text()
    assert len(gallery_data(out / "index.html")["images"]) == 2


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--n-shot", "0"], r"--n-shot must be a whole number \(1 or more\), not 0"),
        (["--seed", "1"], "give --n-shot as well"),
        (["--reference-dir", "elsewhere"], r"image not found: elsewhere"),
        (["--cat-names", "cat"], "has no class 'cat'"),
    ],
)
def test_a_mistake_is_one_line(options: list[str], complaint: str, tmp_path: Path, refusal: Callable[..., str]) -> None:
    files = [str(write_copy(tmp_path / name, name)) for name in ("references.json", "targets.json")]
    line = refusal("benchmark", *files, "--nano", "--device", "cpu", "--out", tmp_path / "run", *options)
    assert re.search(complaint, line)
    assert not (tmp_path / "run" / "metrics.json").exists()
