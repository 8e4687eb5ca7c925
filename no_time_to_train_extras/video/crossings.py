"""Lines that objects cross and zones that they stay in.

supervision's ``LineZone`` forgets on which side an object was that is hidden for two frames. Here an object counts that
crosses a line while it is hidden, or between two frames of which the networks dropped some.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from no_time_to_train.errors import UserError

Points = NDArray[np.float64]


def parse_points(option: str, text: str, fewest: int, most: int | None = None) -> Points:
    """The different points, float64 [n, 2], that an option states as x1,y1,x2,y2,... in pixels."""
    try:
        points = np.array([float(number) for number in text.split(",")]).reshape(-1, 2)
    except ValueError:
        points = np.zeros((0, 2))
    if not fewest <= len(np.unique(points, axis=0)) == len(points) <= (most or len(points)):
        form = "x1,y1,x2,y2" if most else "x1,y1,x2,y2,x3,y3,..."
        raise UserError(f"{option} {text}: write {form}, different points in pixels")
    return points


def crossings(path: Points, line: Points) -> list[tuple[int, str]]:
    """Where a path crosses a line.

    Args:
        path: float64 [n, 2], x and y in pixels: where an object was, in the order of time.
        line: float64 [2, 2], its ends.

    Returns:
        For each crossing, the index in the path from which on the object is on the other side, and which side that is
        for somebody who looks from the line's first end to its second one: "right" or "left".
    """
    start, along = line[0], line[1] - line[0]
    side = (path - start) @ np.array([-along[1], along[0]])  # positive to the right, because y points down
    found = []
    for index in np.flatnonzero(np.diff(side >= 0)).tolist():
        share = side[index] / (side[index] - side[index + 1])
        place = (path[index] + share * (path[index + 1] - path[index]) - start) @ along
        if 0 <= place <= along @ along:
            found.append((index + 1, "right" if side[index + 1] >= 0 else "left"))
    return found


def stays(path: Points, zone: Points) -> list[tuple[int, int]]:
    """For each stay of a path in a zone, float64 [n, 2] as its corners, the first and the last index in the path."""
    corners = zone.astype(np.float32)
    inside = [cv2.pointPolygonTest(corners, (x, y), measureDist=False) >= 0 for x, y in path.tolist()]
    changes = np.flatnonzero(np.diff(np.array([False, *inside, False]))).reshape(-1, 2)
    return [(first, end - 1) for first, end in changes.tolist()]
