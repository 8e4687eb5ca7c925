"""``download``: fetch official checkpoints."""

from collections.abc import Sequence
from pathlib import Path

from no_time_to_train.errors import UserError
from no_time_to_train.networks.registry import FOLDER, PRESETS, PresetName, list_checkpoints


def download(
    names: Sequence[str] = (), *, preset: PresetName | None = None, list: bool = False, folder: Path = FOLDER
) -> None:
    """Download official checkpoints.

    An interrupted download resumes.

    Args:
        names: Checkpoints by name.
        preset: Also the two checkpoints of a preset of the command segment.
        list: Show the names and sizes instead.
        folder: Where to put the files.

    Examples:
        no-time-to-train download sam2_hiera_large dinov2_vitl14
        no-time-to-train download --preset fast
    """
    if list:
        print(list_checkpoints())
        return
    if preset:
        names = [*names, PRESETS[preset].sam2, PRESETS[preset].dinov2]
    if not names:
        raise UserError("name a checkpoint to download, or give --preset; --list shows all")
    from no_time_to_train.networks import download as downloads

    for name in names:
        downloads.download(name, folder)
