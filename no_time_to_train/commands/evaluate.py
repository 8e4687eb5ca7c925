"""``evaluate``: score a COCO results file of any detector."""

import warnings
from pathlib import Path

from no_time_to_train.config import Protocol
from no_time_to_train.errors import UserError, UserNotice
from no_time_to_train.files import REPORT, check_files, check_replaceable, write_json
from no_time_to_train.ranges import Fraction, Positive, Seed


def evaluate(
    *,
    gt: Path,
    results: Path,
    split: str | None = None,
    cat_names: str | None = None,
    protocol: Protocol = "coco",
    semantic_threshold: Fraction = 0.5,
    errors: bool = False,
    explain: bool = False,
    explain_iou: Fraction = 0.5,
    explain_score: Fraction = 0.0,
    out: Path | None = None,
    dataset_name: str | None = None,
    method: str | None = None,
    n_shot: Positive | None = None,
    seed: Seed | None = None,
) -> None:
    """Score a COCO results file of any detector.

    The scores are those of the test stage for its own results, and go to metrics.json.

    Args:
        gt: Ground truth: a COCO annotation file; or, for results of segment, which have an images.json next to them,
            annotations in any form that segment --references takes.
        results: COCO results file.
        split: Class split, such as few_shot_classes. Default: all classes.
        cat_names: Classes by name, separated by commas, instead of a split.
        protocol: How results are scored (docs/benchmarks.md).
        semantic_threshold: With --protocol semantic, the lowest score of an instance that counts; mIoU_as_published
            always takes 0.5.
        errors: Also say which kinds of errors cost how much AP.
        explain: Also say of each object that was not found why, and write explain.json and explain.html. Runs the
            networks again, for results of test or benchmark with run.json next to them.
        explain_iou: With --explain, the IoU with an object that a detection needs to find it.
        explain_score: With --explain, the score that a detection needs. Default: any.
        out: Folder of metrics.json. Default: the folder of the results.
        dataset_name: Name of the data set in the report. Default: the split, or the name of the ground truth's file.
        method: Name of the detector in the report.
        n_shot: Number of shots, for the report.
        seed: Seed, for the report.

    Examples:
        no-time-to-train evaluate --gt instances_val2017.json --results results.json --split few_shot_classes
        no-time-to-train evaluate --gt demo/targets/instances.json --results demo/results.json --explain
    """
    check_files(*([] if gt.is_dir() else [gt]), results)

    from no_time_to_train.data.class_splits import check_split, select_categories
    from no_time_to_train.pipeline.run_record import FILE_NAME, read_sections, record_stage

    check_split(split, cat_names)
    folder = out or results.parent
    for name in ("metrics.json", *(("explain.json", "explain.html") if explain else ())):
        check_replaceable(folder / name, REPORT)
    record = results.parent / FILE_NAME
    stage = read_sections(record).get("test", {}) if explain else {}
    if explain and not (stage.get("status") == "finished" and isinstance(stage.get("config"), dict)):
        raise UserError(f"{record} has no finished run of the test stage: --explain needs one, of test or benchmark")

    from no_time_to_train import evaluation
    from no_time_to_train.data.ground_truth import read_ground_truth
    from no_time_to_train.evaluation.results_file import read_results

    optional = {"method": method, "n_shot": n_shot, "seed": seed}
    labels = {"dataset_name": dataset_name or split or gt.stem, **{k: v for k, v in optional.items() if v is not None}}
    files = {"gt": str(gt), "results": str(results)}
    with record_stage(folder, "evaluate", files, protocol=protocol, labels=labels):
        coco = read_ground_truth(gt, results)
        categories = select_categories(coco, gt, split, cat_names)
        found = read_results(results, coco)
        truth = coco.dataset["annotations"]
        has_masks = [any(one.get("segmentation") for one in records) for records in (truth, found)]
        if not found:
            warnings.warn(f"{results} holds no detection", UserNotice, stacklevel=2)
        elif has_masks == [True, False]:
            warnings.warn(f"{results} holds boxes only: masks are not scored", UserNotice, stacklevel=2)
        metrics, tables = evaluation.evaluate(coco, found, categories, protocol, semantic_threshold, errors)
        if not metrics:
            reason = " ".join(tables.split()) or "it has no annotation of the classes"
            raise UserError(f"there is nothing to evaluate with {gt}: {reason}")
        if explain:
            from no_time_to_train_extras.missed_objects.explain_run import explain_run

            iou_type = "segm" if "segm" in metrics else "bbox"
            needs = iou_type, explain_iou, explain_score
            tables += explain_run(results, folder, coco, gt, found, categories, protocol, *needs)
        write_json(folder / "metrics.json", {**labels, **metrics})
    print(f"{tables}metrics: {folder / 'metrics.json'}")
