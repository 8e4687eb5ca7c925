"""The old name of ``ReferenceSegmenter.explain``, for this version."""

from no_time_to_train.api.reference_segmenter import ReferenceSegmenter

explain_image = ReferenceSegmenter.explain
