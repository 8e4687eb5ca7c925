"""Training-free instance segmentation: show a few annotated examples of an object, and find every one in new images.

Example:
    ::

        from no_time_to_train import ReferenceSegmenter

        segmenter = ReferenceSegmenter.from_pretrained("sam2_hiera_large", "dinov2_vitl14")
        segmenter.add_reference("boat", "ref.jpg", mask="ref_mask.png")
        segmenter.segment("photo.jpg").plot().save("found.jpg")

``help(ReferenceSegmenter)`` explains the rest. The names below are imported when they are first used, so that importing
this package does not take the seconds that torch takes.
"""

from typing import TYPE_CHECKING

__all__ = ["Instance", "Instances", "MemoryBank", "ReferenceSegmenter", "Settings", "UserError", "__version__"]

if TYPE_CHECKING:
    from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
    from no_time_to_train.data.instances import Instance, Instances
    from no_time_to_train.errors import UserError
    from no_time_to_train.method.memory_bank import MemoryBank
    from no_time_to_train.method.settings import Settings

    __version__: str
else:
    #: The module of each public name.
    _MODULES = {
        "Instance": "data.instances",
        "Instances": "data.instances",
        "MemoryBank": "method.memory_bank",
        "ReferenceSegmenter": "api.reference_segmenter",
        "Settings": "method.settings",
        "UserError": "errors",
    }

    def __getattr__(name: str) -> object:
        """Import a public name; type checkers see the imports above instead."""
        from importlib import import_module, metadata

        if name in _MODULES:
            return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        if name == "__version__":
            try:
                return metadata.version("no-time-to-train")
            except metadata.PackageNotFoundError:  # a copy of the source that is not installed
                return "unknown"
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
