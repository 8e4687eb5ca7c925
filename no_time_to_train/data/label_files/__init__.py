"""Objects as the files of labelling tools: to be corrected there, or to train with."""

from no_time_to_train.data.label_files.coco_files import CocoFiles, CocoTrainValFiles, CvatCocoFiles
from no_time_to_train.data.label_files.crop_files import CropFiles
from no_time_to_train.data.label_files.cvat_files import CvatFiles
from no_time_to_train.data.label_files.label_studio_files import LabelStudioFiles
from no_time_to_train.data.label_files.labeled_objects import LabeledImage, LabeledObject, LabelFiles
from no_time_to_train.data.label_files.labelme_files import LabelMeFiles, XAnyLabelingFiles
from no_time_to_train.data.label_files.voc_files import VocFiles
from no_time_to_train.data.label_files.yolo_files import YoloFiles

__all__ = ["FORMATS", "LabelFiles", "LabeledImage", "LabeledObject"]

#: The formats by name.
FORMATS: dict[str, type[LabelFiles]] = {
    files.form: files
    for files in (
        LabelMeFiles,
        XAnyLabelingFiles,
        YoloFiles,
        CvatCocoFiles,
        CocoFiles,
        CocoTrainValFiles,
        VocFiles,
        CvatFiles,
        LabelStudioFiles,
        CropFiles,
    )
}
