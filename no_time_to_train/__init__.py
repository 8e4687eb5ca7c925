"""Show a few annotated examples of a thing; get every instance of it in new images."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from no_time_to_train.reference_segmenter import ReferenceSegmenter

__all__ = ["ReferenceSegmenter"]


def __getattr__(name: str) -> Any:
    """Import what needs torch, which takes seconds, only when it is used."""
    if name == "ReferenceSegmenter":
        from no_time_to_train.reference_segmenter import ReferenceSegmenter

        return ReferenceSegmenter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
