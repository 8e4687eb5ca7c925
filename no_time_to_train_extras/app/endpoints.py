"""The functions of the app under names, for programs: ``gradio_client`` and ``curl`` (docs/app.md)."""

import sys
import traceback
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gradio as gr
from gradio.events import api
from gradio.exceptions import InvalidPathError
from gradio.utils import get_upload_folder
from pydantic import TypeAdapter, ValidationError

from no_time_to_train.data.images import as_rgb
from no_time_to_train.data.instances import coco_content
from no_time_to_train.data.label_files import FORMATS
from no_time_to_train.data.prompts import check_box, check_label, check_point
from no_time_to_train.data.rle import encode_mask
from no_time_to_train.errors import UserError, one_line
from no_time_to_train.files import real_path
from no_time_to_train_extras.app.actions import VERDICTS, exported
from no_time_to_train_extras.app.exports import Exports
from no_time_to_train_extras.app.workspace import Workspace
from no_time_to_train_extras.server.request_parts import LONGEST

#: The x and y in pixels of each point; None for none.
Points = list[list[float]] | None

#: Points that an object can be shown with.
MOST_POINTS = 1000

#: The answer to the path of any other file of this computer.
NOT_UPLOADED = "upload the photo: gradio_client.handle_file does, see docs/app.md"


class Endpoints:
    """The endpoints. A mistake of the caller is an error of one line.

    Args:
        workspace: The photos.
    """

    def __init__(self, workspace: Workspace, exports: Exports) -> None:
        self.workspace, self.exports = workspace, exports
        functions = (self.segment, self.photos, self.objects, self.show, self.judge, self.undo, self.redo, self.export)
        self.functions: dict[str, Callable[..., Any]] = {function.__name__: function for function in functions}

    def add(self) -> None:
        """Add the endpoints to the page that is being built."""
        for function in self.functions.values():
            api(function, api_name=function.__name__)

    def check(self, name: str, values: Any) -> str:
        """What is wrong with the types of the values of a call, in one line; empty where nothing is."""
        function = self.functions.get(name)
        if function is None or not isinstance(values, list):
            return f"{name} takes a list of values" if function else f"there is no endpoint {name}"
        for parameter, value in zip(signature(function).parameters.values(), values, strict=False):
            try:
                if parameter.annotation is not gr.FileData:
                    TypeAdapter(parameter.annotation).validate_python(value, strict=True)
            except ValidationError as error:
                return f"{name}: {parameter.name} is of another type: {error.errors()[0]['msg']}"
        return ""

    def segment(self, photo: gr.FileData, score: float = 0.5) -> dict[str, Any]:
        """Find the objects of all classes in a photo, which is not kept.

        Args:
            photo: The image file.
            score: The threshold.

        Returns:
            The content of a COCO file: one image, its annotations with scores, and the categories.
        """
        if self.workspace.segmenter.memory is None:
            raise UserError("the memory is empty: show an object first, or start the app with --memory")
        path, name = uploaded(photo)
        try:
            pixels = as_rgb(path)
        except UserError as error:
            raise UserError(str(error).replace(str(path), name)) from error
        return coco_content([(name, self.workspace.segment(pixels, score))])

    def photos(self) -> dict[str, Any]:
        """The photos with their numbers of objects by class, and how far the search is.

        ``settled`` says whether the thresholds were found as well, so that nothing changes before the next step.
        """
        search = self.workspace.search
        settled, progress = search.is_settled(), search.progress()
        counts = {name: dict(count) for name, count in self.workspace.counts().items()}
        return {"photos": counts, "searched": progress.classified, "of": progress.photos, "settled": settled}

    def objects(self, photo: str) -> list[dict[str, Any]]:
        """The objects that are shown in a photo: class, score, mask as RLE, and whether a person confirmed it.

        The scores are those after the last step, also where the search has not come to the photo since.
        """
        self.workspace.search.catch_up(photo)
        return [
            {"label": item.label, "score": item.score, "segmentation": item.mask, "confirmed": item.confirmed}
            for item in self.workspace.items(photo)
        ]

    def show(
        self,
        photo: str,
        label: str,
        points: Points = None,
        negative_points: Points = None,
        box: list[float] | None = None,
    ) -> dict[str, Any]:
        """Show an object by points, each x and y in pixels, or by a box x1, y1, x2, y2: it becomes a reference.

        Returns:
            The mask as RLE.
        """
        self.workspace.items(photo)
        if not points and not box:
            raise UserError("give points on the object, or a box around it")
        if len(points or []) + len(negative_points or []) > MOST_POINTS:
            raise UserError(f"an object is shown with at most {MOST_POINTS} points")
        size = self.workspace.opened.pixels(photo).shape[:2]
        on, off = ([check_point(point, *size) for point in several or []] for several in (points, negative_points))
        mask = self.workspace.opened.masks(photo, on, off, None if box is None else check_box(box, *size))[0]
        self.workspace.show(photo, mask, check_label(label))
        return encode_mask(mask)

    def judge(self, photo: str, number: int, verdict: str, label: str | None = None) -> list[dict[str, Any]]:
        """Say what an object is.

        Args:
            photo: The photo.
            number: The object's place in the answer of ``objects``, from 0.
            verdict: ``right``, ``wrong`` or ``remove``; or ``rename``, to another class.
            label: The other class.

        Returns:
            The objects of the photo, as ``objects`` gives them.
        """
        items = self.workspace.items(photo)
        if type(number) is not int or not 0 <= number < len(items):
            raise UserError(f"there is no object {number}: photo {photo} has {len(items)}")
        if verdict not in VERDICTS:
            raise UserError(f"verdict {verdict!r} is none of {', '.join(VERDICTS)}")
        labels = [check_label(label)] if verdict == "rename" else []
        getattr(self.workspace, verdict)(photo, items[number], *labels)
        self.workspace.search.classify(photo)
        return self.objects(photo)

    def undo(self) -> str | None:
        """Take the last step back, and return its name."""
        return self.workspace.undo()

    def redo(self) -> str | None:
        """Do the last undone step again, and return its name."""
        return self.workspace.redo()

    def export(self, formats: list[str] | None = None) -> str:
        """Write all results, as the button Export does, and return what was written."""
        if unknown := set(formats or ()) - set(FORMATS):
            raise UserError(f"formats {', '.join(sorted(unknown))} are none of {', '.join(FORMATS)}")
        return exported(self.exports.write(formats or ()))


class Blocks(gr.Blocks):
    """Gradio's page, in which a call may leave out values that have a default, and any mistake is answered in one line.

    Gradio itself answers most mistakes with no reason at all, and prints a traceback.
    """

    endpoints: Endpoints
    place: TemporaryDirectory[str]

    async def process_api(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Run a function, of an endpoint or of the page, with what was sent."""
        try:
            return await super().process_api(*arguments, **options)
        except gr.Error as error:
            error.print_exception = False
            raise
        except InvalidPathError:
            message = NOT_UPLOADED
        except UserError as error:
            message = str(error)
        except Exception as error:  # what Gradio's components raise about what they were sent, or a mistake of ours
            place = traceback.extract_tb(error.__traceback__)[-1]
            message = f"{type(error).__name__}: {error}"
            print(f"{one_line(message)[:LONGEST]} ({Path(place.filename).name}, line {place.lineno})", file=sys.stderr)
            if type(error).__name__ == "ComponentProcessingError":  # such as of a number that was deleted
                message = "this is not a value that can be used here: give another one"
        raise gr.Error(one_line(message)[:LONGEST], print_exception=False)

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *arguments: Any, **options: Any) -> list[Any]:
        """The values that a function gets for those that the caller sent."""
        parameters = list(signature(block_fn.fn).parameters.values())[: len(block_fn.inputs)]
        left_out = parameters[len(inputs) :]
        if any(one.default is one.empty for one in left_out):
            names = ", ".join(one.name for one in parameters)
            raise UserError(f"{block_fn.name} takes {names}: got {len(inputs)} values")
        values = [*inputs, *(one.default for one in left_out)]
        if block_fn.api_name in self.endpoints.functions and (wrong := self.endpoints.check(block_fn.api_name, values)):
            raise UserError(wrong)
        return await super().preprocess_data(block_fn, values, *arguments, **options)


def uploaded(photo: Any) -> tuple[Path, str]:
    """The file that was uploaded, and no other file of this computer; and the name that it had."""
    path = Path(str(photo.get("path") if isinstance(photo, dict) else None))
    if not real_path(path).is_relative_to(real_path(get_upload_folder())):
        raise UserError(NOT_UPLOADED)
    return path, str(photo.get("orig_name") or path.name)
