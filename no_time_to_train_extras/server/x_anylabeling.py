"""The protocol of X-AnyLabeling-Server, so that X-AnyLabeling labels images by the memories of this server."""

import base64
import binascii
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from fastapi import FastAPI, Request
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from no_time_to_train.data.label_files import LabeledObject
from no_time_to_train.data.label_files.labelme_files import XAnyLabelingFiles
from no_time_to_train_extras.server.service import Service, Upload

#: The buttons that X-AnyLabeling shows for a memory, and what they begin with; the threshold is the server's.
WIDGETS = {
    **dict.fromkeys(("button_run", "button_add_point", "button_remove_point", "button_add_rect", "button_clear")),
    **dict.fromkeys(("button_finish_object", "input_conf", "mask_fineness_value_label")),
    "mask_fineness_slider": 1,
    "toggle_preserve_existing_annotations": False,
}

#: What X-AnyLabeling calls an object that a person shows and has not named yet.
UNNAMED = "AUTOLABEL_OBJECT"

Pixels = Annotated[float, Field(allow_inf_nan=False)]


class PointMark(BaseModel):
    """A point on an object (label 1) or outside it (label 0): x and y in pixels."""

    type: Literal["point"]
    label: Literal[0, 1]
    data: tuple[Pixels, Pixels]


class BoxMark(BaseModel):
    """A box around an object: x1, y1, x2, y2 in pixels."""

    type: Literal["rectangle"]
    label: Literal[1]
    data: tuple[Pixels, Pixels, Pixels, Pixels]


Mark = Annotated[PointMark | BoxMark, Field(discriminator="type")]


class Parameters(BaseModel):
    """What the buttons say; the fineness is the largest error of an outline, relative to its length."""

    conf_threshold: Annotated[float | None, Field(ge=0, le=1)] = None
    epsilon_factor: Annotated[float, Field(ge=0, le=1)] = 0
    marks: Annotated[list[Mark], Field(max_length=1000)] = []


class PredictRequest(BaseModel):
    """The name of a memory, an image in base64, and what the buttons say."""

    model: str
    image: str
    params: Parameters = Parameters()


def add_x_anylabeling(api: FastAPI, service: Service) -> None:
    """Add the addresses of the protocol to the API."""

    @api.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The memories as models of X-AnyLabeling, with the buttons that it shows for each."""
        values = {**WIDGETS, "edit_conf": service.threshold}
        widgets = [{"name": name, "value": value} for name, value in values.items()]
        data = {name: {"display_name": f"No Time To Train: {name}", "widgets": widgets} for name in service.known()}
        return {"success": True, "data": data}

    @api.post("/v1/predict")
    async def predict(request: Request, sent: PredictRequest) -> dict[str, Any]:
        """The objects of an image as polygons for X-AnyLabeling; with points or a box, the object that these show."""
        bank, params = service.memory(sent.model), sent.params
        upload = Upload("", decode_base64(sent.image))
        points = [mark.data for mark in params.marks if isinstance(mark, PointMark) and mark.label]
        others = [mark.data for mark in params.marks if isinstance(mark, PointMark) and not mark.label]
        box = next((mark.data for mark in params.marks if isinstance(mark, BoxMark)), None)

        def job() -> list[dict[str, Any]]:
            if points or box:
                mask = service.prompted(upload, points, others, box)
                objects = [] if mask is None else [LabeledObject(UNNAMED, (0, 0, 0, 0), mask)]
            else:
                ((_, found),) = service.segment([upload], bank, params.conf_threshold)
                objects = [LabeledObject(one.label, one.box, one.mask, one.score) for one in found]
            return to_shapes(objects, params.epsilon_factor)

        shapes = await service.queue.answer(request, 1, job)
        only_add = {"replace": False} if points or box else {}  # else a switch of the program says
        return {"success": True, "data": {"shapes": shapes, "description": "", **only_add}}


def decode_base64(text: str) -> bytes:
    """The bytes of a data URI, or of base64 alone."""
    try:
        return base64.b64decode(text.rpartition(",")[2], validate=True)
    except (binascii.Error, ValueError):
        raise HTTPException(400, "the image is not base64") from None


def to_shapes(objects: Iterable[LabeledObject], fineness: float) -> list[dict[str, Any]]:
    """The outlines of objects, with fewer corners for a larger ``fineness``, as in :class:`Parameters`."""
    shapes = []
    for group, one in enumerate(objects):
        for shape in XAnyLabelingFiles.shapes(one, group):
            outline = np.array(shape["points"], np.float32)
            fewer = cv2.approxPolyDP(outline, fineness * cv2.arcLength(outline, True), True)[:, 0]
            corners = (fewer if len(fewer) >= 3 else outline).tolist()
            if len(fewer) >= 3 or shape["group_id"] is None:  # else a speck next to the rest of the object
                shapes.append({**shape, "points": [*corners, corners[0]]})  # the program closes it where it began
    return shapes
