"""Lines that objects cross and zones that they stay in.

supervision's ``LineZone`` forgets on which side an object was that is hidden for two frames. Here an object counts that
crosses a line while it is hidden, or between two frames of which the networks dropped some.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from no_time_to_train.errors import UserError

Point = tuple[float, float]


def parse_points(option: str, text: str, fewest: int, most: int | None = None) -> list[Point]:
    """The points that an option states as x1,y1,x2,y2,... in pixels."""
    try:
        numbers = [float(number) for number in text.split(",")]
    except ValueError:
        numbers = []
    points = list(zip(numbers[::2], numbers[1::2], strict=False))
    if len(numbers) % 2 or not fewest <= len(points) <= (most or len(points)) or not np.isfinite(numbers).all():
        form = "x1,y1,x2,y2" if most else "x1,y1,x2,y2,x3,y3,..."
        raise UserError(f"{option} {text}: write {form}, in pixels")
    if len(set(points)) < fewest:
        raise UserError(f"{option} {text}: some of its points are the same")
    return points


@dataclass(frozen=True)
class Crossing:
    """The center of an object's box has crossed a line.

    Attributes:
        line: The number of the line, from 1.
        track: The object.
        seconds: When it was first seen on the other side.
        direction: "right" or "left", for somebody who looks from the line's first point to its second one.
    """

    line: int
    track: int
    seconds: float
    direction: str


@dataclass
class Stay:
    """The center of an object's box was in a zone.

    Attributes:
        zone: The number of the zone, from 1.
        track: The object.
        first: When it was first seen there, in seconds.
        last: When it was last seen there, without having been seen elsewhere in between.
    """

    zone: int
    track: int
    first: float
    last: float


@dataclass
class Places:
    """Lines and zones in the picture.

    Attributes:
        lines: Two points each, x and y in pixels.
        zones: The corners of each.
        centers: Where each object was last seen.
        staying: The stays that have not ended, by zone and object.
    """

    lines: Sequence[list[Point]] = ()
    zones: Sequence[list[Point]] = ()
    centers: dict[int, Point] = field(default_factory=dict)
    staying: dict[tuple[int, int], Stay] = field(default_factory=dict)

    def add(self, seconds: float, track: int, box: Sequence[float]) -> tuple[list[Crossing], list[Stay]]:
        """Where an object was seen next.

        Args:
            seconds: When.
            box: xyxy in pixels.

        Returns:
            The lines that it has crossed, and its stays that have ended.
        """
        center = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        before = self.centers.get(track, center)
        self.centers[track] = center
        directions = [_direction(before, center, *line) for line in self.lines]
        crossings = [Crossing(i, track, seconds, to) for i, to in enumerate(directions, start=1) if to]
        ended = []
        for number, corners in enumerate(self.zones, start=1):
            key = number, track
            if cv2.pointPolygonTest(np.array(corners, np.float32), center, measureDist=False) >= 0:
                self.staying.setdefault(key, Stay(number, track, seconds, seconds)).last = seconds
            elif key in self.staying:
                ended.append(self.staying.pop(key))
        return crossings, ended


def _direction(before: Point, after: Point, start: Point, end: Point) -> str:
    """To which side of a line from ``start`` to ``end`` a step leads across it; "" where it does not cross it."""
    line, step = np.subtract(end, start), np.subtract(after, before)
    sides = [float(line[0] * (y - start[1]) - line[1] * (x - start[0])) for x, y in (before, after)]
    if (sides[0] >= 0) == (sides[1] >= 0):
        return ""
    crossed = before + sides[0] / (sides[0] - sides[1]) * step - start
    if not 0 <= crossed @ line <= line @ line:
        return ""
    return "right" if sides[1] >= 0 else "left"  # y points down
