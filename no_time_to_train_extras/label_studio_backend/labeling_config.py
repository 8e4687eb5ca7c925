"""A project's labeling interface: where regions of an image go, and what Label Studio calls them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from defusedxml.ElementTree import fromstring

from no_time_to_train.data.label_files.label_studio_files import region_of
from no_time_to_train.data.label_files.labeled_objects import LabeledObject
from no_time_to_train.data.names import composed
from no_time_to_train.errors import UserError

#: The controls that take a mask or its box, the most exact first.
CONTROLS = ("brushlabels", "polygonlabels", "rectanglelabels")


@dataclass(frozen=True)
class Control:
    """A tool of the labeling interface.

    Attributes:
        kind: One of ``CONTROLS``.
        name: What the interface calls it.
        labels: The classes that it offers, and how it spells them; empty where each task has its own.
    """

    kind: str
    name: str
    labels: dict[str, str]


class LabelingConfig:
    """A labeling interface, read from its XML.

    Attributes:
        image: The name of its first image that has controls.
        key: Where a task's data has the address of this image.
    """

    def __init__(self, xml: str) -> None:
        try:
            nodes = [(node.tag.lower(), node) for node in fromstring(xml).iter()]
        except Exception as error:  # ParseError, DefusedXmlException, ValueError, ...
            raise UserError(f"the labeling interface is no XML: {error}") from error
        found = [(tag, node) for tag, node in nodes if tag in CONTROLS]
        images = {node.get("name"): node.get("value") or "" for tag, node in nodes if tag == "image"}
        targets = [node.get("toName") for _, node in found if images.get(node.get("toName"), "").startswith("$")]
        if not targets:
            raise UserError("the labeling interface needs an Image with BrushLabels, PolygonLabels or RectangleLabels")
        self.image, self.key = str(targets[0]), images[targets[0]][1:]
        self.controls = [
            Control(tag, node.get("name") or "", {composed(name): name for name in names_in(node)})
            for tag, node in sorted(found, key=lambda one: CONTROLS.index(one[0]))
            if node.get("toName") == self.image
        ]

    def region(self, one: LabeledObject, height: int, width: int, number: int = 0) -> dict[str, Any] | None:
        """The region of an object, for the most exact control that has its class; None where none has it."""
        for control in self.controls:
            if not control.labels or one.label in control.labels:
                named = replace(one, label=control.labels.get(one.label, one.label))
                return region_of(named, height, width, control.kind, control.name, self.image, number)
        return None


def names_in(control: Any) -> Iterator[str]:
    """The values of a control's labels, and their aliases, which annotations hold instead."""
    return (name for label in control.iter("Label") for name in map(label.get, ("value", "alias")) if name)
