"""``coco-to-references``: a COCO file's own annotations as a reference set."""

from pathlib import Path

from no_time_to_train.ranges import Positive


def coco_to_references(
    json_file: Path, out: Path, n_shot: Positive | None = None, *, as_published: bool = False
) -> None:
    """Take the first N annotations of every class of a COCO file as a reference set.

    Args:
        json_file: COCO annotations of the references.
        out: Reference set to write, .json or .pkl.
        n_shot: Instances per class. Default: all.
        as_published: As in the paper's results on CD-FSOD: of each image, repeat the first instance of a class once per
            instance; where a class has fewer than N, repeat some at random.

    Examples:
        no-time-to-train coco-to-references refs.json refs.pkl 5
    """
    from no_time_to_train.data import reference_sets
    from no_time_to_train.data.coco import read_coco

    references = reference_sets.coco_to_references(read_coco(json_file), n_shot, as_published)
    reference_sets.write_references(references, out)
    print(f"{len(references)} classes, {sum(map(len, references.values()))} references: {out}")
