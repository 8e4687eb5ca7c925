"""Lines that objects cross and zones that they stay in.

supervision's ``LineZone`` forgets on which side an object was that is hidden for two frames. Here an object counts that
crosses a line while it is hidden, or between two frames of which the networks dropped some.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

#: x and y of points in pixels.
Points = Sequence[Sequence[float]]


def crossings(path: NDArray[np.float64], line: Points) -> list[tuple[int, str]]:
    """Where a path crosses a line.

    Args:
        path: float64 [n, 2], x and y in pixels: where an object was, in the order of time.
        line: Its two ends.

    Returns:
        For each crossing, the index in the path from which on the object is on the other side, and which side that is
        for somebody who looks from the line's first end to its second one: "right" or "left".
    """
    start, along = np.array(line[0]), np.subtract(line[1], line[0])
    side = (path - start) @ np.array([-along[1], along[0]])  # positive to the right, because y points down
    found = []
    for index in np.flatnonzero(np.diff(side >= 0)).tolist():
        share = side[index] / (side[index] - side[index + 1])
        place = (path[index] + share * (path[index + 1] - path[index]) - start) @ along
        if 0 <= place <= along @ along:
            found.append((index + 1, "right" if side[index + 1] >= 0 else "left"))
    return found


def stays(path: NDArray[np.float64], zone: Points) -> list[tuple[int, int]]:
    """For each stay of a path in a zone with these corners, the first and the last index in the path."""
    corners = np.array(zone, np.float32)
    inside = [cv2.pointPolygonTest(corners, (x, y), measureDist=False) >= 0 for x, y in path.tolist()]
    changes = np.flatnonzero(np.diff(np.array([False, *inside, False]))).reshape(-1, 2)
    return [(first, end - 1) for first, end in changes.tolist()]
