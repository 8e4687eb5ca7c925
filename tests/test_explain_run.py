"""Why a run missed objects: the command on drawn scenes against COCO's own matches, and one image from Python."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import Mock

import numpy as np
import pytest
from pycocotools.cocoeval import COCOeval

from no_time_to_train import UserError
from no_time_to_train.benchmarks.own_data_set import run_stages
from no_time_to_train.cli import main
from no_time_to_train.data.coco import read_coco
from no_time_to_train.demo.run_demo import annotation_files, write_inputs
from no_time_to_train.demo.scenes import NOVEL_CLASSES, draw_scene
from no_time_to_train.method.mask_proposals import MaskProposer
from no_time_to_train_extras.missed_objects.explain import REASONS
from no_time_to_train_extras.missed_objects.explain_run import Rerun
from tests.conftest import Capture, Patch, Refusal, nano_segmenter


class Run(NamedTuple):
    """A finished run of the test stage on drawn scenes, with the nano networks."""

    folder: Path
    targets: Path

    @property
    def results(self) -> Path:
        return self.folder / "results.json"


#: Few points, and numbers that lose objects at every step.
LOSSY = {"points_per_side": 12, "iou_thr": 0.8, "num_out_instance": 5, "nms_thr": 0.3}


def options_of(**infer: object) -> list[str]:
    return [word for key, value in infer.items() for word in (f"--model.model_cfg.sam2_infer_cfgs.{key}", str(value))]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    write_inputs(folder, n_shot=1, images=2, seed=1003)
    run_stages(folder, options=[*options_of(**LOSSY), "--model.cache_dir", str(folder / "cache")])
    return Run(folder, annotation_files(folder)[1])


def explained(run: Run, out: Path, *options: str) -> dict[str, Any]:
    words = ["evaluate", "--gt", str(run.targets), "--results", str(run.results), "--explain", "--out", str(out)]
    main([*words, *options])
    return json.loads((out / "explain.json").read_text())


def test_the_configuration_is_read_by_a_process_that_runs_no_stage(run: Run) -> None:
    script = (
        "import sys, pathlib\n"
        "from no_time_to_train_extras.missed_objects.explain_run import read_run\n"
        "read_run(pathlib.Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", script, run.folder], check=True)


def missed_by_coco(truth: Path, results: list[dict[str, Any]], iou: float) -> set[int]:
    """The ids of the objects that COCO's evaluation matches with no detection."""
    coco = read_coco(truth)
    evaluator = COCOeval(coco, coco.loadRes(results), "segm")
    evaluator.params.iouThrs, evaluator.params.areaRng = np.array([iou]), evaluator.params.areaRng[:1]
    evaluator.evaluate()
    images = [one for one in evaluator.evalImgs if one]
    return {id for one in images for id, match in zip(one["gtIds"], one["gtMatches"][0], strict=True) if not match}


@pytest.mark.parametrize(("iou", "score"), [(0.5, 0.0), (0.9, 0.0), (0.5, 0.6)])
def test_the_command_explains_each_object_that_coco_finds_missed(
    run: Run, tmp_path: Path, capsys: Capture, iou: float, score: float
) -> None:
    content = explained(run, tmp_path, "--explain-iou", str(iou), "--explain-score", str(score))
    shown = [one for one in json.loads(run.results.read_text()) if one["score"] >= score]
    misses = content["objects_missed"]
    assert len(misses) > 4
    assert sorted(one["id"] for one in misses) == sorted(missed_by_coco(run.targets, shown, iou))
    counts = Counter(one["reason"] for one in misses)
    assert counts == {reason: cost["count"] for reason, cost in content["reasons"].items() if cost["count"]}
    assert len(counts) > 1
    assert sum(cost["count"] for cost in content["parts"].values()) == content["misses"] == len(misses)
    printed = capsys.readouterr().out
    assert f"MISSED OBJECTS: {len(misses)} of {content['objects']} " in printed
    assert "UserNotice" not in printed
    if (iou, score) == (0.5, 0):
        ap50 = json.loads((tmp_path / "metrics.json").read_text())["segm"]["AP50"]
        assert content["AP"] == pytest.approx(ap50)
    page = (tmp_path / "explain.html").read_text()
    assert page.count("<figure>") == len(misses)


def test_proposals_are_read_from_the_cache_and_an_interrupted_command_resumes(
    run: Run, tmp_path: Path, monkeypatch: Patch
) -> None:
    strict = "--explain-iou", "0.8"
    first = explained(run, tmp_path / "first", *strict)
    encoded: list[Any] = []
    monkeypatch.setattr(MaskProposer, "encode", lambda *args: encoded.append(args))
    done: list[int] = []
    explain_one = Rerun.explain

    def interrupted(self: Rerun, image_id: int, *args: Any) -> Any:
        done.append(image_id)
        if len(done) == 2:
            raise KeyboardInterrupt
        return explain_one(self, image_id, *args)

    monkeypatch.setattr(Rerun, "explain", interrupted)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        explained(run, tmp_path / "second", *strict)
    assert explained(run, tmp_path / "second", *strict) == first
    assert len(done) == len(set(done)) + 1  # only the image at which it was interrupted is done again
    assert not encoded


def test_pictures_that_change_between_two_attempts_are_noticed(
    run: Run, tmp_path: Path, monkeypatch: Patch, refusal: Refusal
) -> None:
    explain_one = Rerun.explain
    monkeypatch.setattr(Rerun, "explain", Mock(side_effect=[{"misses": [], "differs": False}, KeyboardInterrupt]))
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        explained(run, tmp_path)
    monkeypatch.setattr(Rerun, "explain", explain_one)
    pictures = {path: path.read_bytes() for path in run.targets.parent.rglob("*.[jp][pn]g")}
    try:
        for path, content in pictures.items():
            path.write_bytes(content + b"0")
        words = ["--gt", run.targets, "--results", run.results, "--explain", "--out", tmp_path]
        assert "finished items of a run with another pictures." in refusal("evaluate", *words)
    finally:  # other tests use them, too
        for path, content in pictures.items():
            path.write_bytes(content)


def test_guided_prompts_that_left_an_object_out_are_a_reason(run: Run, tmp_path: Path) -> None:
    stage = ["test", "--config", str(run.folder / "config.yaml"), "--model.test_mode", "test"]
    paths = ["--ckpt_path", str(run.folder / "memory_postprocessed.ckpt"), "--export_result"]
    guided = options_of(points_per_side=10, prompts="guided", prompt_threshold=-1, prompt_budget=0.02)
    main([*stage, *paths, str(tmp_path / "results.json"), *guided])
    content = explained(Run(tmp_path, run.targets), tmp_path)
    reasons = Counter(one["reason"] for one in content["objects_missed"])
    assert reasons["no_prompt"] > 3
    assert reasons.keys() <= REASONS.keys()


def test_results_that_the_run_does_not_give_any_more_are_noticed(run: Run, tmp_path: Path, capsys: Capture) -> None:
    shutil.copy(run.folder / "run.json", tmp_path)
    results = json.loads(run.results.read_text())
    (tmp_path / "results.json").write_text(json.dumps([{**one, "score": one["score"] / 2} for one in results]))
    explained(Run(tmp_path, run.targets), tmp_path, "--explain-iou", "0.9")
    assert "the reasons are those of the latter" in capsys.readouterr().err


def test_python_explains_the_objects_of_one_image(tmp_path: Path) -> None:
    scene = draw_scene(np.random.default_rng(1002), NOVEL_CLASSES, (160, 160))
    largest = int(scene.masks.sum(axis=(1, 2)).argmax())
    segmenter = nano_segmenter()
    segmenter.add_reference("thing", scene.image, mask=scene.masks[largest])
    nothing = np.zeros((160, 160), bool)
    nothing[:, :5] = True  # a strip of the background
    found, missed = segmenter.explain(scene.image, [("thing", scene.masks[largest]), ("thing", nothing)])
    assert found is None
    assert (missed.reason, missed.best_iou < 0.5) == ("never_proposed", True)
    with pytest.raises(UserError, match="did you mean 'thing'"):
        segmenter.explain(scene.image, [("thingy", scene.masks[largest])])


def test_what_cannot_be_explained_is_said_in_one_line(run: Run, tmp_path: Path, refusal: Refusal) -> None:
    def refused(*options: object) -> str:
        results = tmp_path / "results.json"
        return refusal("evaluate", "--gt", run.targets, "--results", results, "--explain", *options)

    shutil.copy(run.results, tmp_path / "results.json")
    assert "has no finished run of the test stage" in refused()
    sections = json.loads((run.folder / "run.json").read_text())
    for broken, message in (
        ({"config": {}}, "a configuration that cannot be read"),
        ({"config": "none"}, "has no finished run"),
        ({"status": "failed"}, "has no finished run"),
        ({"files": {"memory": {"path": str(run.targets), "sha256": "0"}}}, "is not the file any more"),
        ({"files": ["memory"]}, "a configuration that cannot be read"),
    ):
        (tmp_path / "run.json").write_text(json.dumps({"test": {**sections["test"], **broken}}))
        assert message in refused()
    (tmp_path / "run.json").write_text(json.dumps(sections))
    truth = json.loads(run.targets.read_text())
    truth["categories"].append({"id": 99, "name": "boat"})
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    assert "boat" in refused("--gt", tmp_path / "truth.json")
    assert not (tmp_path / "explain.json").exists()
