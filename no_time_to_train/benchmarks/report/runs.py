"""The runs under a folder, read from their ``run.json`` and ``metrics.json``."""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from no_time_to_train.config import OUR_NAMES, renamed
from no_time_to_train.errors import UserError, UserNotice, one_line
from no_time_to_train.files import read_json
from no_time_to_train.method.settings import CONTEXT_RATIO, MODES, SPEED_SETTINGS, Settings
from no_time_to_train.pipeline.run_record import FILE_NAME

#: The name of the method in the tables, unless a run says that its results come from another detector.
OURS = "No Time To Train"

#: The settings that the paper's method has one value of: the default.
METHOD_KEYS = ["prototype", *(one.name for one in fields(Settings) if one.name not in SPEED_SETTINGS)]

#: The name of a peer's method in the tables, and the settings by which it is known (``configs/fsod_vfm.yaml``).
PEER = "FSOD-VFM"
PEER_SETTINGS = {"quality": "given", "pooling": "grid", "merging": "diffusion", "output_box": "proposal"}

#: The paper's networks, and the nano ones that stand in for them, by the keys of ``model_cfg``.
NETWORKS = {"encoder": ("dinov2_large", "dinov2_nano"), "sam2_cfg_file": ("sam2_hiera_l", "sam2_nano")}

#: The context around references in the paper's results, of which nothing is named: the default, and the authors' own.
CONTEXT_RATIOS = (None, CONTEXT_RATIO, 0.1)

#: What the status of a stage may be.
STATES = ("running", "finished", "failed")

#: The longest reason of a failure in the report, in characters.
LONGEST_REASON = 1000


@dataclass
class Run:
    """A run: one folder with a ``run.json``.

    Attributes:
        folder: Its folder, relative to the folder of all runs.
        status: ``finished``, ``failed`` or ``unfinished``.
        reason: Which stage failed and why, or how far an unfinished run has come.
        dataset: The name of the target set in ``metrics.json``, such as ``few_shot_classes``.
        method: Name of the detector; :data:`OURS` is the paper's method.
        shots: Shots per class, where known.
        seed: Seed of the reference set, where known.
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
        return 100 * value if isinstance(value, int | float) else None


def find_runs(folder: str | Path) -> list[Run]:
    """Read every run under a folder, at any depth, in the order of their paths.

    A damaged ``run.json`` or ``metrics.json`` makes a failed run, not an exception.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"folder not found: {folder}")

    def name(error: OSError) -> None:
        text = f"{error.filename} cannot be read, so runs in it are left out: {error.strerror}"
        warnings.warn(text, UserNotice, stacklevel=2)

    walk = os.walk(folder, onerror=name)
    places = sorted(Path(place) for place, folders, files in walk if FILE_NAME in [*folders, *files])
    return [read_run(place, str(place.relative_to(folder))) for place in places]


def read_run(folder: Path, name: str) -> Run:
    """Read one run, whose :attr:`Run.folder` becomes ``name``.

    A run is finished when its results were scored. ``evaluate`` can score them after ``test`` failed, so a failed stage
    counts only where nothing was scored.
    """
    name = one_line(name)
    try:
        return _read_run(folder, name)
    except UserError as error:
        return Run(name, "failed", one_line(error)[:LONGEST_REASON])
    except ValueError as error:
        return Run(name, "failed", f"{FILE_NAME} is damaged: {one_line(error)[:LONGEST_REASON]}")


def _read_run(folder: Path, name: str) -> Run:
    """The run in a folder; a ValueError or UserError says what is wrong with it."""
    sections = read_json(folder / FILE_NAME)
    if not isinstance(sections, dict) or not sections or not all(isinstance(one, dict) for one in sections.values()):
        raise ValueError("it does not hold the stages of a run")
    labels: dict[str, Any] = {}
    for section in sections.values():
        labels.update(_value(section, "labels", {}, lambda value: isinstance(value, dict)))
    states = {stage: _value(section, "status", None, STATES.__contains__) for stage, section in sections.items()}
    run = Run(
        folder=name,
        status="unfinished",
        dataset=one_line(_value(labels, "dataset_name", None, _is_name) or folder.name),
        method=one_line(_value(labels, "method", None, _is_name) or _our_method(sections.get("test", {}))),
        shots=_value(labels, "n_shot", None, lambda value: value is None or _is_integer(value, 1, 10**6)),
        seed=_value(labels, "seed", None, lambda value: value is None or _is_integer(value, -(2**63), 2**63)),
        seconds=sum(_value(one, "seconds", 0.0, lambda value: _is_figure(value, 1e9)) for one in sections.values()),
    )
    if "finished" in (states.get("test"), states.get("evaluate")):
        run.metrics = _read_metrics(folder / "metrics.json")
        run.status = "finished"
        return run
    stage, status = next((one for one in states.items() if one[1] == "failed"), list(states.items())[-1])
    ended = "evaluate was not run on it" if stage in ("segment", "track", "app") else "no later stage was started"
    reason = "started, but did not end" if status == "running" else f"finished; {ended}"
    if status == "failed":
        run.status, reason = status, sections[stage].get("error", "no reason is recorded")
    run.reason = one_line(f"{stage}: {reason}")[:LONGEST_REASON]
    return run


def _our_method(section: dict[str, Any]) -> str:
    """The name of our method in the tables: that of the paper's, and the settings in which a test stage differs."""
    init_args, paper = ("config", "model", "init_args"), Settings()
    model = _inner(section, *init_args, "model_cfg")
    settings, encoder = renamed(_inner(model, "sam2_infer_cfgs"), OUR_NAMES), _inner(model, "encoder_cfg")
    references = _inner(section, *init_args, "dataset_cfgs", "fill_memory")
    others = {
        key: settings[key] for key in METHOD_KEYS if settings.get(key, getattr(paper, key)) != getattr(paper, key)
    }
    names = {"encoder": encoder.get("name"), "sam2_cfg_file": model.get("sam2_cfg_file")}
    if str(names["sam2_cfg_file"]).startswith("sam2_nano"):
        others.pop("points_per_side", None)  # it needs fewer
    others |= {key: name for key, name in names.items() if name and not str(name).startswith(NETWORKS[key])}
    choices = {"debias": encoder, "keep_aspect": encoder, "blur_ksize": references}
    others |= {key: part[key] for key, part in choices.items() if part.get(key)}
    if (ratio := references.get("context_ratio")) not in CONTEXT_RATIOS:
        others["context_ratio"] = ratio
    if (proposals := model.get("proposals", "grid")) != "grid":
        others["proposals"] = proposals
    if not others:
        return OURS
    if PEER_SETTINGS.items() <= others.items():
        return PEER
    mode = next((name for name, values in MODES.items() if values == others), None)
    return f"{OURS} ({mode or ', '.join(f'{key} {str(value)[:40]}' for key, value in others.items())})"


def _inner(section: Any, *keys: str) -> dict[str, Any]:
    """A part of a part of a record; empty where there is none."""
    for key in keys:
        section = section.get(key) if isinstance(section, dict) else None
    return section if isinstance(section, dict) else {}


def _read_metrics(path: Path) -> dict[str, Any]:
    """The figures of a run."""
    metrics = read_json(path)
    if not isinstance(metrics, dict):
        raise UserError(f"{path} is not a file of metrics")
    for kind in ("bbox", "segm", "semantic"):
        figures = metrics.get(kind, {})
        if not isinstance(figures, dict):
            raise UserError(f"{path} is not a file of metrics: {kind} is a {type(figures).__name__}")
        for name, value in figures.items():
            if not isinstance(value, dict | list) and value is not None and not _is_figure(value, 1):
                raise UserError(f"{path} has {kind}/{name} {str(value)[:40]!r}, not a fraction from 0 to 1")
    return metrics


def _value(section: dict[str, Any], key: str, default: Any, is_valid: Callable[[Any], bool]) -> Any:
    """A value of ``run.json``; a ValueError where it is not valid."""
    value = section.get(key, default)
    try:
        valid = is_valid(value)
    except TypeError:  # a list where a text belongs
        valid = False
    if not valid:
        raise ValueError(f"its {key} is {str(value)[:40]!r}")
    return value


def _is_name(value: Any) -> bool:
    return value is None or (isinstance(value, str) and len(value) <= 200)


def _is_integer(value: Any, lowest: int, above: int) -> bool:
    return type(value) is int and lowest <= value < above


def _is_figure(value: Any, highest: float) -> bool:
    return type(value) in (int, float) and 0 <= value <= highest
