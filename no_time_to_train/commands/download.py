"""``download``: fetch official checkpoints."""

from collections.abc import Sequence
from pathlib import Path

from no_time_to_train.errors import UserError
from no_time_to_train.networks.registry import FOLDER, list_checkpoints


def download(names: Sequence[str] = (), *, list: bool = False, folder: Path = FOLDER) -> None:
    """Download official checkpoints.

    An interrupted download resumes.

    Args:
        names: Checkpoints by name.
        list: Show the names and sizes instead.
        folder: Where to put the files.

    Examples:
        no-time-to-train download sam2_hiera_large dinov2_vitl14
    """
    if list:
        print(list_checkpoints())
        return
    if not names:
        raise UserError("name a checkpoint to download; --list shows all")
    from no_time_to_train.networks import download as downloads

    for name in names:
        downloads.download(name, folder)
