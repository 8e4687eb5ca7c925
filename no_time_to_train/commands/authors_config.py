"""Configurations of the authors' code, which are read as they are: their keys become those of this package.

Only the content of the file is translated. The classes that it names are never imported.
"""

from copy import deepcopy
from typing import Any

from no_time_to_train.config import Protocol, configuration_keys
from no_time_to_train.errors import UserError
from no_time_to_train.ranges import choices_of

#: The LightningModule of this package, and the name of theirs, which forks keep in packages of other names.
OUR_CLASS, THEIR_CLASS = "no_time_to_train.lightning_module.NoTimeToTrain", "Sam2MatcherLightningModel"

#: ``model_cfg.name`` of the paper's method in their code, which ignores case.
METHOD = "matching_baseline_noAMG"

#: Keys that only other models of theirs have -> the model.
OTHER_MODELS = {
    "model_cfg.matcher_cfg": "matcher",
    "model_cfg.sam2_amg_cfg": "matching_baseline",
    "model_cfg.train_cfg": "a model that is trained",
    "train_cfg": "a model that is trained",
    "dataset_cfgs.train": "a model that is trained",
}

#: Stands for any value in ``WITHOUT_MEANING``.
ANY = object()

#: Their keys that this package lacks -> the value that changes nothing. Another value would change results. A key
#: that the configuration of this package gets one day is passed on.
WITHOUT_MEANING = {
    "model_cfg.memory_bank_cfg.enable": True,
    **{
        f"dataset_cfgs.{stage}.{key}": value
        for stage in ("fill_memory", "test", "support")
        for key, value in (("norm_img", False), ("with_query_points", False), ("n_points_per_edge", ANY))
    },
}

#: The protocols, and how the names of the data sets and class splits begin that they score; the first counts.
PROTOCOLS: dict[Protocol, tuple[str, ...]] = {
    "semantic": ("coco_semantic_split", "semantic"),
    "coco": ("coco", "default_classes", "few_shot_classes", "cdfsod"),
    "lvis": ("lvis",),
    "voc": ("pascal_voc", "voc"),
}

#: The context ratio where a configuration of theirs has none (``coco_ref_dataset.py``); the paper's is 0.2.
THEIR_CONTEXT_RATIO = 0.1

#: Callbacks that have no meaning in a stage: it has its own progress bar, and nothing is trained.
CALLBACKS = ("TQDMProgressBar", "RichProgressBar", "ModelCheckpoint", "EarlyStopping", "LearningRateMonitor")


def translate(content: dict[str, Any], where: str) -> tuple[dict[str, Any], list[str]]:
    """Translate a configuration of the authors' code to this package's keys.

    Args:
        content: The content of the file. A configuration of this package is returned as it is.
        where: Names the file in messages.

    Returns:
        The translated content, and the keys that have no meaning here and were left out.
    """
    content = deepcopy(content)
    model, ignored = content.get("model"), []
    if isinstance(model, dict) and isinstance(model.get("init_args"), dict):
        stage = model["init_args"]
        check_model(stage, where)
        theirs = is_theirs(model)
        if theirs:
            model["class_path"] = OUR_CLASS
            filled = value_of(stage, "dataset_cfgs.fill_memory")
            if isinstance(filled, dict):
                filled.setdefault("context_ratio", THEIR_CONTEXT_RATIO)
        remove(stage, "model_cfg.name")
        ignored += remove_without_meaning(stage, where) + translate_names(stage, theirs)
    if isinstance(content.get("trainer"), dict):
        ignored += translate_trainer(content["trainer"])
    return content, ignored


def is_theirs(model: dict[str, Any]) -> bool:
    """Whether the ``model`` of a configuration is the authors': by the name of its class, or by its content."""
    class_path = str(model.get("class_path", ""))
    named = value_of(model["init_args"], "model_cfg.name") is not None
    return class_path != OUR_CLASS and (class_path.rpartition(".")[2] == THEIR_CLASS or named)


def check_model(stage: dict[str, Any], where: str) -> None:
    """Raise a UserError where the configuration is for another model than the paper's."""
    name = value_of(stage, "model_cfg.name")
    other = None if name is None or str(name).lower() == METHOD.lower() else str(name)
    if other is None:
        other = next((model for key, model in OTHER_MODELS.items() if value_of(stage, key) is not None), None)
    if other is not None:
        raise UserError(
            f"{where} is for another model of the authors' code: {other}; "
            f"this package has the paper's method only, which is called {METHOD} there"
        )


def remove_without_meaning(stage: dict[str, Any], where: str) -> list[str]:
    """Remove the keys that have no meaning here.

    Args:
        stage: ``model.init_args``, which is changed.
        where: Names the file in messages.

    Returns:
        The removed keys.
    """
    removed = []
    for key, harmless in WITHOUT_MEANING.items():
        value = value_of(stage, key)
        if is_known(key):
            continue
        if value is not None:
            if harmless is not ANY and value != harmless:
                raise UserError(f"{where}: {key} {str(value).lower()} would change results and is not supported")
            removed.append(key)
        remove(stage, key)
    return removed


def translate_names(stage: dict[str, Any], theirs: bool) -> list[str]:
    """Turn the names of data sets into protocols.

    Args:
        stage: ``model.init_args``, which is changed.
        theirs: Whether the configuration is the authors'. In one of this package, ``name`` may be a protocol.

    Returns:
        The keys whose value is not known.
    """
    ignored = []
    for data in ("fill_memory", "test", "support"):
        key = f"dataset_cfgs.{data}.name"
        name = value_of(stage, key)
        if name is None or (not theirs and (name in choices_of(Protocol) or protocol_of(str(name)) is None)):
            continue
        remove(stage, key)
        protocol = protocol_of(str(name))
        if protocol is None:
            ignored.append(f"{key} {name}")
        elif data == "test":  # only targets are scored
            stage["dataset_cfgs"]["test"].setdefault("protocol", protocol)
    return ignored


def protocol_of(name: str) -> Protocol | None:
    """The protocol that scores a data set or class split of this name; None if the name is not known."""
    return next((protocol for protocol, starts in PROTOCOLS.items() if name.startswith(starts)), None)


def translate_trainer(trainer: dict[str, Any]) -> list[str]:
    """Remove callbacks without meaning, and take a list of one logger as this logger.

    Options such as ``--trainer.logger.save_dir`` address a logger that is not in a list.

    Args:
        trainer: The options of Lightning's Trainer, which are changed.

    Returns:
        What was removed.
    """
    logger, callbacks = trainer.get("logger"), trainer.get("callbacks")
    if isinstance(logger, list) and len(logger) == 1:
        trainer["logger"] = logger[0]
    if not isinstance(callbacks, list):
        return []
    names = [str(one.get("class_path")).rpartition(".")[2] if isinstance(one, dict) else "" for one in callbacks]
    kept = [one for one, name in zip(callbacks, names, strict=True) if name not in CALLBACKS]
    if kept:
        trainer["callbacks"] = kept
    else:
        del trainer["callbacks"]
    return [f"trainer.callbacks {name}" for name in names if name in CALLBACKS]


def value_of(content: Any, key: str) -> Any:
    """The value of a key with dots; None where there is none."""
    for part in key.split("."):
        if not isinstance(content, dict):
            return None
        content = content.get(part)
    return content


def remove(content: Any, key: str) -> None:
    """Remove a key with dots, if it exists."""
    parent, _, last = key.rpartition(".")
    holder = value_of(content, parent) if parent else content
    if isinstance(holder, dict):
        holder.pop(last, None)


def is_known(key: str) -> bool:
    """Whether this package has a key of ``model.init_args``, written with dots."""
    return value_of(configuration_keys(), key) is not None
