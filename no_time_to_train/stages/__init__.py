"""The three stages of the method, by the name of their test mode."""

from no_time_to_train.stages.base import RunCfg, Stage
from no_time_to_train.stages.fill_memory import FillMemoryStage
from no_time_to_train.stages.postprocess_memory import PostprocessMemoryStage
from no_time_to_train.stages.test import TestStage
from no_time_to_train.stages.vis_memory import VisMemoryStage

STAGES: dict[str, type[FillMemoryStage | PostprocessMemoryStage | VisMemoryStage | TestStage]] = {
    "fill_memory": FillMemoryStage,
    "postprocess_memory": PostprocessMemoryStage,
    "vis_memory": VisMemoryStage,
    "test": TestStage,
}

__all__ = ["STAGES", "RunCfg", "Stage"]
