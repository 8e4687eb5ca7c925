"""One project of Label Studio: the references that people made in it, and predictions for its tasks.

The networks see each image once. Its proposals are kept on disk under the address of the image, so that after each
annotation only the classification is done again. The references of each task are a memory file, whose name changes
whenever the annotation does.
"""

import hashlib
import json
import tempfile
from collections.abc import Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

import cv2
import numpy as np
from numpy.typing import NDArray

from no_time_to_train.api.prompted_references import read_prompted
from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
from no_time_to_train.data.images import IMAGE_ENDINGS, as_rgb, decode_image
from no_time_to_train.data.label_files.labeled_objects import LabeledObject
from no_time_to_train.data.memory_files import load_memory, save_memory
from no_time_to_train.data.prompts import check_box, check_label, check_point
from no_time_to_train.data.reference_forms import label_studio
from no_time_to_train.data.reference_forms.folder import Folder
from no_time_to_train.data.reference_forms.reference import Reference
from no_time_to_train.data.rle import encode_mask
from no_time_to_train.errors import UserError, plural
from no_time_to_train.files import remove_leftovers_in
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.networks.box_prompts import PromptedImage, Sam2Boxes, mask_or_box
from no_time_to_train.networks.devices import computing_in
from no_time_to_train.pipeline.proposal_cache import CacheEntry, ProposalCache, hash_tensors
from no_time_to_train_extras.label_studio_backend.labeling_config import LabelingConfig
from no_time_to_train_extras.label_studio_backend.studio import LabelStudio

#: Images whose features for clicks stay in memory.
KEPT_IMAGES = 4


class StudioProject:
    """A project. One thread at a time uses it, because all projects share the networks.

    Args:
        config: Its labeling interface.
        folder: Where its references and proposals are kept. Its name is the project's number and time of creation.
        made_with: What proposals depend on besides the images.
        loaded: Classes to begin with.
        threshold: The lowest score of a predicted region.

    Attributes:
        memory: All references; None where there are none.
        tasks_of: The task of each annotation, by their numbers.
        described: The references of a task, by what marks them: those that stay are not described again.
    """

    def __init__(
        self,
        config: LabelingConfig,
        folder: Path,
        studio: LabelStudio,
        segmenter: ReferenceSegmenter,
        made_with: dict[str, Any],
        loaded: MemoryBank | None,
        threshold: float,
    ) -> None:
        self.config, self.folder, self.studio, self.segmenter = config, folder / "references", studio, segmenter
        self.loaded, self.threshold = loaded, threshold
        self.number = int(folder.name.partition(".")[0])
        self.cache = ProposalCache(folder / "proposals", made_with)
        self.tasks_of: dict[str, int] = {}
        self.described: dict[int, dict[str, MemoryBank]] = {}
        self.prompted = lru_cache(KEPT_IMAGES)(self._prompt)
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers_in(folder)
        self.banks = {path: load_memory(path) for path in sorted(self.folder.glob("*.memory"))}
        self._join()

    # The references.

    def learn(self, number: int, task: dict[str, Any] | None, annotations: Sequence[dict[str, Any]] = ()) -> None:
        """Take the annotations of a task as references; None is a task that was deleted."""
        annotations = [one for one in annotations if not one.get("was_cancelled")]
        self.tasks_of |= {str(one["id"]): number for one in annotations}
        said = [[one.get("ground_truth"), one["result"]] for one in annotations]
        text = json.dumps([self.segmenter.made_with, task and self.address(task), said], sort_keys=True)
        path = self.folder / f"{number}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.memory"
        old = [other for other in self.banks if other.name.startswith(f"{number}-") and other != path]
        if path in self.banks and not old:
            return
        if path not in self.banks and task is not None and (bank := self._describe(number, task, annotations)):
            save_memory(bank, path)
            self.banks[path] = bank
        for other in old:
            other.unlink(missing_ok=True)
            del self.banks[other]
        self._join()

    def forget(self, annotated: Set[int], only: int | None) -> None:
        """Forget the references of a task, or of all tasks where ``only`` is None, unless they are annotated."""
        known = {int(path.name.partition("-")[0]) for path in self.banks}
        for number in (known if only is None else {only}) - annotated:
            self.learn(number, None)

    def _describe(self, number: int, task: dict[str, Any], annotations: Sequence[dict[str, Any]]) -> MemoryBank | None:
        """The references in the annotations of a task, read as from an export; None where they mark no object."""
        before, self.described[number] = self.described.get(number, {}), {}
        annotations = [{**one, "result": self._on_image(one["result"])} for one in annotations]
        if not any(one["result"] for one in annotations):
            return None
        address = self.address(task)
        ending = PurePosixPath(unquote(address)).suffix.lower()
        ending = ending if ending in IMAGE_ENDINGS else ".png"
        with tempfile.TemporaryDirectory() as place:
            image = Path(place) / f"image{ending}"
            image.write_bytes(self.studio.image(address, self.number))
            tasks = [{"data": {"image": image.name}, "annotations": list(annotations)}]
            references = label_studio.read(Path(place) / "tasks.json", tasks, Folder(Path(place)))
            marks = [repr(replace(one, image=Path(address))) for one in references]
            new = {mark: one for mark, one in zip(marks, references, strict=True) if mark not in before}
            banks = before | dict(zip(new, self._banks([*new.values()]), strict=True))
        if not marks:
            return None
        self.described[number] = {mark: banks[mark] for mark in marks}
        bank = MemoryBank.join([banks[mark] for mark in marks])
        bank.made_with = self.segmenter.made_with
        return bank

    def _banks(self, references: Sequence[Reference]) -> list[MemoryBank]:
        """A memory of each reference of an image, which is read once."""
        if not references:
            return []
        pixels, describer, banks = references[0].read()[0], self.segmenter.describer, []
        for one in self._with_masks(references, pixels):
            shown = read_prompted(pixels, one.read_mask(), one.box, one.points, one.negative_points)
            banks.append(describer.describe_prompted(check_label(one.label), shown, False, one.image.name)[0])
        return banks

    def _with_masks(self, references: Sequence[Reference], pixels: NDArray[np.uint8]) -> list[Reference]:
        """The references of one image; those with a box alone have its mask, and SAM 2 has seen the image once."""
        boxes = [one for one in references if one.box is not None and one.mask is None and not one.points]
        if not boxes:
            return [*references]
        corners = np.array([one.box for one in boxes], np.float32)
        with self._prompting():
            masks = map(mask_or_box, self.segmenter.prompts(pixels, corners), corners)
        made = {id(one): replace(one, mask=encode_mask(mask)) for one, mask in zip(boxes, masks, strict=True)}
        return [made.get(id(one), one) for one in references]

    def _join(self) -> None:
        """Make the memory of all references, and its version."""
        fitting = {path: bank for path, bank in self.banks.items() if bank.made_with == self.segmenter.made_with}
        order = sorted(fitting, key=lambda path: int(path.name.partition("-")[0]))
        banks = [*([self.loaded] if self.loaded else []), *(fitting[path] for path in order)]
        self.memory = MemoryBank.join(banks) if banks else None
        loaded = hash_tensors({"loaded": self.loaded.vectors} if self.loaded else {})
        state = [self.cache.made_with, self.threshold, [path.name for path in order], loaded]
        digest = hashlib.sha256(json.dumps(state).encode()).hexdigest()[:8]
        self.version = f"no-time-to-train, {plural(len(self.memory) if self.memory else 0, 'reference')}, {digest}"

    # The images.

    def _on_image(self, regions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The regions that are on the image that is searched: a task may show several."""
        return [one for one in regions if one.get("to_name", self.config.image) == self.config.image]

    def address(self, task: dict[str, Any]) -> str:
        """The address of a task's image."""
        address = task["data"].get(self.config.key)
        if not isinstance(address, str):
            raise UserError(f"task {task.get('id')} has no image under {self.config.key!r}")
        return address

    def pixels(self, address: str) -> NDArray[np.uint8]:
        """The pixels of an image, uint8 [H, W, 3] RGB, upright as browsers show it."""
        return as_rgb(decode_image(self.studio.image(address, self.number), address))

    def proposals(self, task: dict[str, Any], make: bool = True) -> CacheEntry | None:
        """What the networks say about a task's image; None where this is not known and is not to be made."""
        address = self.address(task)
        key = self.cache.key_of(address)
        entry = self.cache.read(key)
        if entry is None and make:
            pixels = self.pixels(address)
            proposed = self.segmenter.propose(pixels).proposals
            entry = self.cache.write(key, proposed, *pixels.shape[:2])
        return entry

    def _prompting(self) -> AbstractContextManager[None]:
        """What the network of clicks and boxes computes in: SAM's code allows float32 only."""
        precision = self.segmenter.precision if isinstance(self.segmenter.prompts, Sam2Boxes) else "float32"
        return computing_in(precision, self.segmenter.device)

    def _prompt(self, address: str) -> tuple[PromptedImage, int, int]:
        """The features of an image that clicks need, and its height and width."""
        pixels = self.pixels(address)
        with self._prompting():
            return PromptedImage(self.segmenter.prompts, pixels), *pixels.shape[:2]

    # The predictions.

    def predict(self, entry: CacheEntry) -> dict[str, Any]:
        """The prediction for an image: a region for each object, the best first."""
        self.segmenter.set_memory(self.memory)
        assert self.memory is not None
        found = self.segmenter.segmenter.match_and_merge(entry.proposals.to(self.segmenter.device))
        found = found[found.scores >= self.threshold]
        objects = []
        for row, (index, score) in enumerate(zip(found.classes.tolist(), found.scores.tolist(), strict=True)):
            x1, y1, x2, y2 = found.boxes[row].tolist()
            mask = np.asarray(found.masks[row])
            objects.append(LabeledObject(self.memory.categories[index].name, (x1, y1, x2 + 1, y2 + 1), mask, score))
        return self._result(objects, entry.height, entry.width)

    def interact(self, task: dict[str, Any], drawn: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The object that a person shows with smart key points and rectangles.

        Args:
            drawn: The regions that were drawn.
        """
        prompted, height, width = self.prompted(self.address(task))
        if not (drawn := self._on_image(drawn)):
            return self._result([], height, width)
        label, box = "", None
        on: list[tuple[float, float]] = []
        off: list[tuple[float, float]] = []
        for region in drawn:
            value = region["value"]
            label = next((names[0] for key, names in value.items() if key.endswith("labels") and names), label)
            x, y = value["x"] * width / 100, value["y"] * height / 100
            if "width" in value and "height" in value:
                x2, y2 = x + value["width"] * width / 100, y + value["height"] * height / 100
                box = check_box((x, y, x2, y2), height, width)
            else:
                point = check_point((min(x, width - 1), min(y, height - 1)), height, width)
                (on if region.get("is_positive", True) else off).append(point)
        with self._prompting():
            masks, predicted_iou = prompted.masks(on, off, box)
        if not len(masks):
            return self._result([], height, width)
        x, y, w, h = cv2.boundingRect(masks[0].astype(np.uint8))
        one = LabeledObject(label, (x, y, x + w, y + h), masks[0], float(np.clip(predicted_iou[0], 0, 1)))
        shown = self._result([one], height, width)
        for region in shown["result"]:  # one with the id of another would replace it in the open annotation
            region["id"] = uuid4().hex[:10]
        return shown

    def _result(self, objects: Sequence[LabeledObject], height: int, width: int) -> dict[str, Any]:
        """A prediction; objects of classes that the labeling interface does not offer are left out."""
        regions = [self.config.region(one, height, width, number) for number, one in enumerate(objects)]
        kept = [region for region in regions if region is not None]
        scores = [region["score"] for region in kept]
        mean = round(sum(scores) / len(scores), 4) if scores else 0.0
        return {"result": kept, "score": mean, "model_version": self.version}
