"""``propose``: write what is proposed in images to a file, before any reference is known."""

from collections.abc import Sequence
from pathlib import Path

from no_time_to_train.commands.options import NetworkOptions, check_new_file, check_proposals
from no_time_to_train.errors import UserError, plural
from no_time_to_train.method.settings import PROPOSALS_PER_IMAGE
from no_time_to_train.ranges import Positive


def propose(
    *,
    images: Sequence[str],
    out: Path,
    image_dir: Path | None = None,
    proposer: str = "grid",
    proposals_per_image: Positive = PROPOSALS_PER_IMAGE,
    every: Positive = 30,
    networks: NetworkOptions,
) -> None:
    """Propose masks or boxes in images, and write them to a file that segment --proposals and the stages read.

    Args:
        images: Folders, globs, images, videos, or one COCO annotation file.
        out: The file, JSON: a COCO file whose annotations have scores.
        image_dir: The folder of the images that a COCO file lists. Default: they are looked for near the file.
        proposer: What proposes: grid, SAM 2's grid of points, whose masks are written; or a network, whose boxes or
            masks are written (docs/proposals.md).
        proposals_per_image: Of a network, the proposals of an image that are kept, the best ones.
        every: Of a video, one frame in this many.
        networks: The networks and their settings.

    Examples:
        no-time-to-train propose --images photos/ --out masks.json
        no-time-to-train propose --images photos/ --proposer owlv2 --out boxes.json
    """
    check_new_file(out, "a file of proposals", ".json")
    if proposer.partition("=")[0] == "sam3":
        raise UserError("sam3 looks for references, and propose has none: use segment --proposals sam3")
    check_proposals([proposer])
    grid = proposer == "grid"
    networks.check(needed=grid)
    if grid and (networks.tiles > 1 or networks.settings()["prompts"] != "grid"):
        raise UserError("propose --proposer grid writes the grid of whole images: leave out --tiles and guided prompts")

    from no_time_to_train.api.sources import build_sources
    from no_time_to_train.data.targets import find_targets
    from no_time_to_train_extras.proposers.write_proposals import write_proposals

    targets = find_targets(images, every, None, image_dir)
    print(f"images: {targets.description}")
    (source,) = build_sources(proposer, proposals_per_image, networks.device)
    written, skipped = write_proposals(out, targets, networks.build() if grid else None, source)
    for reason in skipped:
        print(f"skipped: {reason}")
    print(f"{plural(written, 'proposal')}: {out}")
