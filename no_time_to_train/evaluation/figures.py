"""What is scored, and the figures that come out."""

from typing import Any

#: An entry of a COCO file: a result, or an annotation.
Record = dict[str, Any]
Records = list[Record]

#: Figures by name; None where there is no ground truth.
Figures = dict[str, float | None]

#: The content of ``metrics.json``: figures by name, for each of "bbox", "segm", "semantic" and "errors".
Metrics = dict[str, dict[str, Any]]
