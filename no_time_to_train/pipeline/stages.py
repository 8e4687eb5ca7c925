"""The stages by the name of their test mode."""

from no_time_to_train.pipeline.fill_memory_stage import FillMemoryStage
from no_time_to_train.pipeline.find_instances_stage import TestStage
from no_time_to_train.pipeline.find_negatives_stage import TestSupportStage
from no_time_to_train.pipeline.negative_memory_stages import FillMemoryNegStage, PostprocessMemoryNegStage
from no_time_to_train.pipeline.postprocess_memory_stage import PostprocessMemoryStage
from no_time_to_train.pipeline.stage import Stage
from no_time_to_train.pipeline.vis_memory_stage import VisMemoryStage

STAGES: dict[str, type[Stage]] = {
    "fill_memory": FillMemoryStage,
    "postprocess_memory": PostprocessMemoryStage,
    "vis_memory": VisMemoryStage,
    "test": TestStage,
    "test_support": TestSupportStage,
    "fill_memory_neg": FillMemoryNegStage,
    "postprocess_memory_neg": PostprocessMemoryNegStage,
}
