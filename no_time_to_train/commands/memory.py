"""``memory show``, ``memory merge`` and ``memory remove``: look into memories, join them, remove classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from no_time_to_train.data.names import as_known
from no_time_to_train.errors import UserError, plural
from no_time_to_train.files import check_memories

if TYPE_CHECKING:
    from no_time_to_train.method.memory_bank import MemoryBank

#: k-means centers and principal components per class in its picture, as in the paper's figures.
KMEANS_K, COMPONENTS = 4, 3


def show(memory: Path, *, pictures: Path | None = None, dinov2: str | None = None) -> None:
    """Show the classes of a memory, the number of references of each, and what it was made with.

    Args:
        memory: Memory file.
        pictures: Folder for one picture per class: its references, k-means regions and principal components.
        dinov2: With --pictures, the encoder's checkpoint, if it is not in checkpoints/.

    Examples:
        no-time-to-train memory show boat.memory --pictures pictures/
    """
    check_memories([memory])

    from no_time_to_train.data.memory_files import load_memory

    bank = load_memory(memory)
    width = max((len(category.name) for category in bank.categories), default=0)
    counts = zip(bank.categories, bank.counts.tolist(), bank.negative_counts.tolist(), strict=True)
    for category, count, negative in counts:
        negatives = f", {negative} negative" if negative else ""
        print(f"{category.name:<{width}}  {plural(count, 'reference')}{negatives}  (id {category.id})")
    print("made with " + ", ".join(f"{key} {value}" for key, value in bank.made_with.items()))
    if pictures:
        draw(bank, memory, dinov2, pictures)
        print(f"pictures: {pictures}")


def merge(memories: Sequence[Path], *, out: Path) -> None:
    """Join memories.

    A class that several of them have gets the references of all.

    Args:
        memories: Memory files.
        out: Memory to write.

    Examples:
        no-time-to-train memory merge boat.memory bird.memory --out both.memory
    """
    check_memories(memories)

    from no_time_to_train.data.memory_files import join_memories, load_memory

    _save(join_memories([(path, load_memory(path)) for path in memories]), out)


def remove(memory: Path, classes: Sequence[str], *, out: Path) -> None:
    """Remove classes from a memory.

    Args:
        memory: Memory file.
        classes: Names of the classes to remove.
        out: Memory to write.

    Examples:
        no-time-to-train memory remove both.memory boat --out bird.memory
    """
    check_memories([memory])

    from no_time_to_train.data.memory_files import load_memory

    bank = load_memory(memory)
    known = [category.name for category in bank.categories]
    _save(bank.remove([as_known(name, known) for name in classes]), out)


def _save(bank: "MemoryBank", out: Path) -> None:
    from no_time_to_train.data.memory_files import save_memory

    save_memory(bank, out)
    positive, negative = int(bank.counts.sum()), int(bank.negative_counts.sum())
    negatives = f", {negative} negative" if negative else ""
    print(f"{plural(len(bank.categories), 'class')}, {plural(positive, 'reference')}{negatives}: {out}")


def draw(bank: "MemoryBank", path: Path, dinov2: str | None, folder: Path) -> None:
    """Draw each class's references with their k-means regions and principal components."""
    from no_time_to_train.data.memory_files import recorded
    from no_time_to_train.data.reference_image import decode_picture
    from no_time_to_train.networks.build import build_encoder
    from no_time_to_train.networks.encoders import TIMM
    from no_time_to_train.networks.registry import CHECKPOINT_OF, ENCODER_NAMES, find_network
    from no_time_to_train.visual.drawing import check_pictures, save_picture
    from no_time_to_train.visual.memory_pictures import class_sheet

    if all(crop is None for crop in bank.crops):
        raise UserError("this memory keeps no pictures of its references; draw it with test_mode vis_memory")
    check_pictures(folder / f"{category.id}.png" for category in bank.categories)
    name, size = (recorded(bank, path, key) for key in ("encoder", "img_size"))
    debias = bank.made_with.get("debias", 0)
    named = name in ENCODER_NAMES.values() or str(name).startswith(TIMM)
    if not named or type(size) is not int or type(debias) is not int:
        raise UserError(f"memory {path} was made with encoder {name!r} of size {size!r}, which do not exist")
    network = find_network(dinov2 or CHECKPOINT_OF.get(name, name), ENCODER_NAMES)
    encoder = build_encoder(name, size, checkpoint=network.checkpoint, debias=debias)
    for index, category in enumerate(bank.categories):
        crops = [decode_picture(png) for png in bank.crops_of(index)]
        if crops:
            sheet = class_sheet(category.name, crops, encoder, KMEANS_K, COMPONENTS)
            save_picture(sheet, folder / f"{category.id}.png")
