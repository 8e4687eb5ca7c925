"""References whose images are among the photos: their objects are confirmed, as if a person had shown them there."""

from collections.abc import Sequence
from pathlib import Path

from no_time_to_train.api.prompted_references import naming, read_reference
from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
from no_time_to_train.app.corrections import same_object
from no_time_to_train.app.project import Annotation, Verdict
from no_time_to_train.app.workspace import Workspace
from no_time_to_train.data.images import shown_size
from no_time_to_train.data.reference_forms.reference import Reference
from no_time_to_train.data.rle import encode_mask
from no_time_to_train.data.targets import TargetImage
from no_time_to_train.errors import plural
from no_time_to_train.files import sha256


def take_annotations(
    references: Sequence[Reference], photos: Sequence[TargetImage], segmenter: ReferenceSegmenter
) -> tuple[list[Annotation], list[Reference]]:
    """Make annotations of those references that mark an object in one of the photos.

    Returns:
        The annotations, whose ids are 0; and the other references: those of other images, and images without a mask.
    """
    names = _photos_of({reference.image for reference in references if not reference.is_unmarked}, photos)
    annotations, others = [], []
    for reference in references:
        name = names.get(reference.image)
        if name is None or reference.is_unmarked:
            others.append(reference)
            continue
        with naming(reference):
            shown = read_reference(reference)
            mask = shown.mask
            if mask is None:
                mask = segmenter.describer.mask(reference.label, shown, reference.negative, str(reference.image))
            upright = mask.shape == shown_size(reference.image)
        if upright:
            verdict: Verdict = "wrong" if reference.negative else "right"
            annotations.append(Annotation(0, name, reference.label, encode_mask(mask), verdict))
        else:  # it was annotated as the file stores it, and the photo is shown turned
            others.append(reference)
    return annotations, others


def confirm(workspace: Workspace, annotations: Sequence[Annotation], source: Path) -> None:
    """Confirm the objects of references in one step, which can be undone.

    What the project knew already stays as it is: objects that it took from these references earlier, also where the
    person has removed them since, and objects about which the person said something.

    Args:
        annotations: From :func:`take_annotations`.
    """
    project = workspace.project
    new = [
        one
        for one in annotations
        if not project.ever_had(one)
        and not same_object([other.mask for other in project.of_photo(one.photo)], [one.mask]).any()
    ]
    if new:
        workspace.do(f"{plural(len(new), 'reference')} of {source.name or source}", new)


def _photos_of(images: set[Path], photos: Sequence[TargetImage]) -> dict[Path, str]:
    """The names of the photos with the same content as image files; only files of the same size are read."""
    by_size: dict[int, list[TargetImage]] = {}
    for target in photos:
        if target.path is not None:
            by_size.setdefault(target.path.stat().st_size, []).append(target)
    names = {}
    for image in images:
        for target in by_size.get(image.stat().st_size, []):
            assert target.path is not None
            if image.samefile(target.path) or sha256(image) == sha256(target.path):
                names[image] = target.name
                break
    return names
