"""``memory``: look into memories of objects, join them, remove classes."""

from pathlib import Path

import torch

from no_time_to_train.commands.parser import command_parser
from no_time_to_train.data.memory_files import join_memories, load_memory, save_memory
from no_time_to_train.errors import UserError
from no_time_to_train.method.encoder import Encoder
from no_time_to_train.method.fill_memory import patch_weights
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.networks.build import build_dinov2
from no_time_to_train.networks.registry import DINOV2_NAMES, find_network
from no_time_to_train.visual.drawing import save_picture
from no_time_to_train.visual.memory_pictures import class_sheet, decode_crop

#: k-means centres and principal components of a class, for its picture.
KMEANS_K, COMPONENTS = 4, 3


def run(argv: list[str]) -> None:
    actions = {"show": show, "merge": merge_memories, "remove": remove_classes}
    action, *rest = argv or [""]
    if action in ("-h", "--help"):
        print(f"usage: no-time-to-train memory {'|'.join(actions)} ...; memory show --help says more")
    elif action not in actions:
        raise UserError(f"memory {action}: choose one of {', '.join(actions)}")
    else:
        actions[action](rest)


def show(argv: list[str]) -> None:
    parser = command_parser("memory show", "Say what a memory holds.", "boat.memory --pictures pictures/")
    parser.add_argument("memory", type=str)
    parser.add_argument("--pictures", type=str | None, help="folder for a picture a class: shots, regions, components")
    parser.add_argument("--dinov2", type=str | None, help="for the pictures: the encoder, if it lies elsewhere")
    args = parser.parse_args(argv)
    bank = load_memory(args.memory)
    width = max((len(category.name) for category in bank.categories), default=0)
    for category, count in zip(bank.categories, bank.counts.tolist(), strict=True):
        print(f"{category.name:<{width}}  {count} references  (id {category.id})")
    print("made with " + ", ".join(f"{key} {value}" for key, value in bank.made_with.items()))
    if args.pictures:
        draw(bank, args.dinov2, Path(args.pictures))
        print(f"pictures: {args.pictures}")


@torch.inference_mode()
def draw(bank: MemoryBank, dinov2: str | None, folder: Path) -> None:
    """Draw each class's shots beside their k-means regions and principal components."""
    if not any(crop is not None for crop in bank.crops):
        raise UserError("this memory keeps no pictures of its references; draw it with test_mode vis_memory")
    names = {network: name for name, network in DINOV2_NAMES.items()}
    network = find_network(dinov2 or names[bank.made_with["encoder"]], DINOV2_NAMES)
    size = bank.made_with["img_size"]
    encoder = Encoder(build_dinov2(bank.made_with["encoder"], size, checkpoint=network.checkpoint))
    for index, category in enumerate(bank.categories):
        crops = [decode_crop(png) for png in bank.crops_of(index)]
        if crops:
            tokens = [encoder(crop[None])[0] for crop, _ in crops]
            weights = [patch_weights(mask, encoder.size, encoder.grid) for _, mask in crops]
            sheet = class_sheet(category.name, crops, tokens, weights, KMEANS_K, COMPONENTS)
            save_picture(sheet, folder / f"{category.id}.png")


def merge_memories(argv: list[str]) -> None:
    parser = command_parser(
        "memory merge",
        "Join memories: a class that several have gets the shots of all.",
        "boat.memory bird.memory --out both.memory",
    )
    parser.add_argument("memories", type=str, nargs="+")
    parser.add_argument("--out", type=str, required=True, help="memory to write")
    args = parser.parse_args(argv)
    bank = join_memories({Path(path): load_memory(path) for path in args.memories})
    save_memory(bank, args.out)
    print(f"{len(bank.categories)} classes, {len(bank)} references: {args.out}")


def remove_classes(argv: list[str]) -> None:
    parser = command_parser("memory remove", "Remove classes from a memory.", "both.memory boat --out bird.memory")
    parser.add_argument("memory", type=str)
    parser.add_argument("classes", type=str, nargs="+", help="names of the classes to remove")
    parser.add_argument("--out", type=str, required=True, help="memory to write")
    args = parser.parse_args(argv)
    bank = load_memory(args.memory).remove(args.classes)
    save_memory(bank, args.out)
    print(f"{len(bank.categories)} classes, {len(bank)} references: {args.out}")
