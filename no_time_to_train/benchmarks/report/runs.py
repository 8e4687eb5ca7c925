"""The runs under a folder, read from their ``run.json`` and ``metrics.json``."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from no_time_to_train.errors import UserError
from no_time_to_train.files import read_json
from no_time_to_train.pipeline.run_record import FILE_NAME

#: The name of the method in the tables, unless a run says that its results come from another detector.
OURS = "No Time To Train"


@dataclass
class Run:
    """A run: one folder with a ``run.json``.

    Attributes:
        folder: Its folder, relative to the folder of all runs.
        status: ``finished``, ``failed`` or ``unfinished``.
        reason: Which stage failed and why, or how far an unfinished run has come.
        dataset: The name of the target set in ``metrics.json``, such as ``few_shot_classes``.
        method: Name of the detector.
        shots: Shots per class, where known.
        seed: Seed of the reference set, where known.
        seconds: Seconds that all its stages took.
        metrics: Content of ``metrics.json``; empty unless the run is finished.
    """

    folder: str
    status: str
    reason: str = ""
    dataset: str = ""
    method: str = OURS
    shots: int | None = None
    seed: int | None = None
    seconds: float = 0.0
    metrics: dict[str, Any] = field(default_factory=dict)

    def value(self, measure: str) -> float | None:
        """A figure in percent by its place in the metrics, such as ``bbox/AP``; None where there is none."""
        kind, name = measure.split("/")
        value = self.metrics.get(kind, {}).get(name)
        return None if value is None else 100 * value


def find_runs(folder: str | Path) -> list[Run]:
    """Read every run under a folder, at any depth, in the order of their paths.

    A damaged ``run.json`` makes a failed run, not an exception.

    Raises:
        UserError: The folder does not exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"folder not found: {folder}")
    return [read_run(path.parent, str(path.parent.relative_to(folder))) for path in sorted(folder.rglob(FILE_NAME))]


def read_run(folder: Path, name: str) -> Run:
    """Read one run.

    A run is finished when its results were scored. ``evaluate`` can score them after ``test`` failed, so a failed stage
    counts only where nothing was scored.

    Args:
        folder: Folder of the run.
        name: What :attr:`Run.folder` becomes.
    """
    try:
        sections = read_json(folder / FILE_NAME)
        labels: dict[str, Any] = {}
        for section in sections.values():
            labels.update(section.get("labels", {}))
        run = Run(
            folder=name,
            status="unfinished",
            dataset=str(labels.get("dataset_name") or folder.name),
            method=labels.get("method", OURS),
            shots=labels.get("n_shot"),
            seed=labels.get("seed"),
            seconds=sum(section.get("seconds", 0.0) for section in sections.values()),
        )
        if any(sections.get(stage, {}).get("status") == "finished" for stage in ("test", "evaluate")):
            run.metrics = read_json(folder / "metrics.json")
            run.status = "finished"
            return run
        for stage, section in sections.items():
            if section["status"] == "failed":
                run.status, run.reason = "failed", f"{stage}: {section.get('error', 'no reason is recorded')}"
                return run
        stage, section = list(sections.items())[-1]
        state = "started, but did not end" if section["status"] == "running" else "finished; no later stage was started"
        run.reason = f"{stage}: {state}"
        return run
    except (UserError, AttributeError, KeyError, TypeError, IndexError) as error:
        return Run(name, "failed", str(error) if isinstance(error, UserError) else f"{FILE_NAME} is damaged: {error!r}")
