"""The addresses of the server: images in, COCO out."""

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from no_time_to_train import __version__
from no_time_to_train.data.instances import coco_content
from no_time_to_train.errors import UserError, suggest
from no_time_to_train.visual.html import TEMPLATES
from no_time_to_train_extras.server.request_guard import Metrics, refuse
from no_time_to_train_extras.server.service import Service, Upload
from no_time_to_train_extras.server.x_anylabeling import add_x_anylabeling

PAGE = Path(__file__).parent / "templates" / "api.html"

#: What the address of ``/segment`` may state.
PARAMETERS = {"memory", "threshold"}

#: How images are sent, for the description of the API.
IMAGES = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"image": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            },
        },
    }
}


def build_api(service: Service, metrics: Metrics) -> FastAPI:
    """Build the API. Who may use it, and how much, is checked before it (``RequestGuard``)."""

    api = FastAPI(title="No Time To Train", version=__version__, docs_url=None, redoc_url=None)

    @api.exception_handler(HTTPException)
    async def answer_refusal(_: Request, error: HTTPException) -> Response:
        return refuse(error)

    @api.exception_handler(UserError)
    async def answer_mistake(_: Request, error: UserError) -> Response:
        return refuse(HTTPException(400, str(error)))

    @api.exception_handler(RequestValidationError)
    async def answer_wrong_value(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = " ".join(map(str, first["loc"][1:])) or "the body, JSON with Content-Type: application/json"
        return refuse(HTTPException(400, f"{where}: {first['msg']}"))

    @api.post("/segment", openapi_extra=IMAGES)
    async def segment(
        request: Request,
        memory: str | None = None,
        threshold: Annotated[float | None, Query(ge=0, le=1)] = None,
    ) -> Response:
        """Find objects in an image, the body, or in several images, the files of a form.

        The answer is COCO: images, categories, and annotations with compressed RLE and a score. memory is the name of
        one of /memories; threshold is the lowest score of an object, from 0 to 1.
        """
        given = [name for name, _ in request.query_params.multi_items()]
        for name in given:
            if name not in PARAMETERS:
                raise UserError(f"there is no parameter {name!r}{suggest(name, PARAMETERS)}")
            if given.count(name) > 1:
                raise UserError(f"{name} is given {given.count(name)} times: give it once")
        bank = service.memory(memory)
        uploads = await read_uploads(request, service.queue.capacity)

        def job() -> str:
            return json.dumps(coco_content(service.segment(uploads, bank, threshold)))

        return Response(await service.queue.answer(request, len(uploads), job), media_type="application/json")

    @api.get("/memories")
    async def memories() -> list[dict[str, Any]]:
        """The memories with their classes, and how many references each class has. The first is the default."""
        return [
            {
                "name": name,
                "classes": [
                    {"id": one.id, "name": one.name, "references": int((bank.class_index == number).sum())}
                    for number, one in enumerate(bank.categories)
                ],
            }
            for name, bank in service.known().items()
        ]

    @api.get("/health")
    async def health() -> dict[str, Any]:
        """Whether the server answers, and how many images wait."""
        now = datetime.now(timezone.utc).isoformat()
        state = {"status": "healthy", "models_loaded": len(service.known()), "timestamp": now}
        return {**state, "version": __version__, "waiting": service.queue.waiting}

    @api.get("/metrics", response_class=PlainTextResponse)
    async def show_metrics() -> str:
        """Counts of requests and images, and the seconds that answers took, for Prometheus."""
        queue, seconds = service.queue, round(service.queue.seconds, 6)
        return metrics.text({"images_total": queue.images, "waiting_images": queue.waiting, "image_seconds": seconds})

    @api.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page(request: Request) -> str:
        """What the API has, in a browser."""
        text = PAGE.read_text(encoding="utf-8")
        return TEMPLATES.from_string(text).render(api=api.openapi(), url=str(request.base_url).rstrip("/"))

    add_x_anylabeling(api, service)
    return api


async def read_uploads(request: Request, most: int) -> Sequence[Upload]:
    """The images of a request.

    Args:
        most: The most images.

    Raises:
        HTTPException: 400 where there is none.
    """
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        async with request.form(max_files=most, max_fields=most) as form:
            files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
            for name, value in form.multi_items():
                if not isinstance(value, UploadFile):
                    raise UserError(
                        f"the field {name!r} of the form is no file: parameters stand in the address, ?threshold=0.5"
                    )
            uploads = [Upload(file.filename or "", await file.read()) for file in files]
    else:
        uploads = [Upload("", await request.body())]
    if not any(upload.content for upload in uploads):
        raise HTTPException(400, "there is no image: send it as the body, or several as the files of a form")
    return uploads
