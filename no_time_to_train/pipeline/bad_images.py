"""Target images that cannot be read: they stop the run, or are skipped and listed in ``skipped.json``."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from no_time_to_train.data.coco import ImageId
from no_time_to_train.errors import UserError
from no_time_to_train.files import write_json


@dataclass
class BadImages:
    """What to do with images that cannot be read, and which ones there were.

    Attributes:
        policy: ``stop`` ends the run at the first one, ``skip`` continues without it.
        limit: How many may be skipped; None means any number.
        skipped: The records of the skipped images.
    """

    policy: Literal["stop", "skip"]
    limit: int | None
    skipped: list[dict[str, Any]] = field(default_factory=list)

    def skip(self, image_id: ImageId, reason: str) -> dict[str, Any]:
        """Add an image.

        Args:
            image_id: The image's id in its annotation file.
            reason: One line that says what is wrong.

        Returns:
            The image's record.
        """
        if self.policy == "stop":
            raise UserError(f"{reason} (--on_bad_image skip continues without it)")
        self.skipped.append({"image_id": image_id, "skipped": reason})
        if self.limit is not None and len(self.skipped) > self.limit:
            raise UserError(f"more than --max_bad {self.limit} images cannot be read; one of them: {reason}")
        return self.skipped[-1]

    def write(self, path: Path) -> list[str]:
        """Write the list of skipped images, if skipping is allowed.

        Returns:
            Lines for the user.
        """
        if self.policy == "stop":
            return []
        write_json(path, self.skipped)
        return [f"{len(self.skipped)} images were skipped: {path}", *(record["skipped"] for record in self.skipped)]
