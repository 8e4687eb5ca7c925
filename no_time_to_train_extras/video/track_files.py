"""The files that ``track`` writes. Whatever the length of a video, little of them is in memory."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import ChoiceLoader, PackageLoader
from pycocotools import mask as coco_mask

from no_time_to_train.data.memory_files import save_memory
from no_time_to_train.data.rle import Rle, coco_object, decode_mask, encode_mask, mask_area
from no_time_to_train.files import atomic_write
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.pipeline.output_folder import write_table
from no_time_to_train.pipeline.summary import Thresholds
from no_time_to_train.visual.drawing import PALETTE
from no_time_to_train.visual.html import TEMPLATES
from no_time_to_train_extras.video.crossings import Places, Stay
from no_time_to_train_extras.video.filmstrips import Filmstrips, VideoFile, color_of, draw_tracks
from no_time_to_train_extras.video.track_frames import TrackedFrame

#: The page of the tracks extends that of the package.
PAGES = TEMPLATES.overlay(
    loader=ChoiceLoader([PackageLoader("no_time_to_train_extras.video"), PackageLoader("no_time_to_train.visual")])
)

TABLES = """
CREATE TABLE frames (frame INTEGER PRIMARY KEY, seconds, height, width);
CREATE TABLE instances (frame, track, category, score, x1, y1, x2, y2, area, counts);
CREATE TABLE crossings (line, track, seconds, direction);
CREATE TABLE stays (zone, track, first, last);
"""

#: Once all frames are known. In SQLite, ``category`` is that of the row with the largest sum of scores.
SUMS = """
CREATE INDEX by_track ON instances (track, frame);
CREATE INDEX by_frame ON instances (frame, score);
CREATE TABLE tracks AS
SELECT sums.track AS id, category, first, last, frames, score FROM (
    SELECT track, category, MAX(total) FROM (
        SELECT track, category, SUM(score) AS total FROM instances GROUP BY track, category) GROUP BY track
) AS votes JOIN (
    SELECT track, MIN(seconds) AS first, MAX(seconds) AS last, COUNT(*) AS frames, AVG(score) AS score
    FROM instances JOIN frames USING (frame) GROUP BY track
) AS sums ON sums.track = votes.track ORDER BY sums.track;
CREATE UNIQUE INDEX by_id ON tracks (id);
"""

#: The instances, each with the class of its whole track.
INSTANCES = """
SELECT instances.frame, seconds, height, width, track, tracks.category, instances.score, x1, y1, x2, y2, area, counts
FROM instances JOIN frames USING (frame) JOIN tracks ON tracks.id = track ORDER BY
"""


class TrackFiles:
    """Writes what is found in a video: :meth:`add` the frames in their order, then :meth:`finish`.

    ======================= ============================================================================================
    ``tracks.csv``          One line per object: class, first and last second, frames, mean score
    ``counts.csv``          One line per class: different objects, the most at once, crossings of each line, and objects
                            in each zone
    ``instances.csv``       One line per object and frame
    ``results.json``        COCO results with ``track_id``; ``images.json`` has their frames and categories
    ``crossings.csv``       With lines: one line per crossing
    ``stays.csv``           With zones: one line per stay
    ``mots/NAME.txt``       With the format "mots"
    ``youtube_vis.json``    With the format "youtube-vis"
    ``video/NAME.mp4``      With the format "video"
    ``references.memory``   The memory
    ``index.html``          The objects with their filmstrips, which are in ``tracks/``
    ======================= ============================================================================================

    Args:
        out: The folder, to which no other process writes.
        name: What the video is called.
        rate: Frames per second of the annotated video.
    """

    def __init__(
        self,
        out: Path,
        name: str,
        memory: MemoryBank,
        thresholds: Thresholds,
        places: Places,
        formats: Sequence[str] = (),
        rate: float = 25.0,
    ) -> None:
        self.out, self.name, self.memory, self.thresholds = out, name, memory, thresholds
        self.places, self.formats = places, formats
        self.names = {category.id: category.name for category in memory.categories}
        self.database = sqlite3.connect("")  # on the disk, and deleted when it is closed
        self.database.executescript(TABLES)
        self.filmstrips = Filmstrips(self.database)
        self.video = VideoFile(rate) if "video" in formats else None

    def add(self, frame: TrackedFrame) -> None:
        """Add the next frame."""
        number, records = frame.number, frame.to_record()["results"]
        insert = self.database.executemany
        insert("INSERT INTO frames VALUES (?, ?, ?, ?)", [(number, frame.seconds, *frame.instances.image.shape[:2])])
        rows = []
        for record, box, area in zip(records, frame.instances.boxes.tolist(), frame.instances.areas, strict=True):
            track, counts = record["track_id"], record["segmentation"]["counts"]
            rows.append((number, track, record["category_id"], record["score"], *box, int(area), counts))
            crossings, stays = self.places.add(frame.seconds, track, box)
            insert("INSERT INTO crossings VALUES (?, ?, ?, ?)", [tuple(vars(one).values()) for one in crossings])
            self._add_stays(stays)
        insert(f"INSERT INTO instances VALUES ({', '.join('?' * 10)})", rows)
        self.filmstrips.add(frame)
        if self.video is not None:
            self.video.add(draw_tracks(frame), frame.seconds)

    def finish(self) -> dict[str, int]:
        """Write the files, and return the number of different objects of each class that has any."""
        self._add_stays(self.places.staying.values())
        self.database.executescript(SUMS)
        save_memory(self.memory, self.out / "references.memory")
        tracks = [(one[0], self.names[one[1]], *one[2:]) for one in self._rows("SELECT * FROM tracks")]
        columns = ["track", "class", "first_seconds", "last_seconds", "frames", "mean_score"]
        write_table(self.out / "tracks.csv", [columns, *([*map(_cell, track)] for track in tracks)])
        objects = self._write_counts()
        self._write_instances()
        for name, title in (("crossings", "line"), ("stays", "zone")):
            if self.places.lines if name == "crossings" else self.places.zones:
                found = self._rows(f"SELECT {name}.*, category FROM {name} JOIN tracks ON id = track ORDER BY 3, 1, 2")
                ends = ["seconds", "direction"] if name == "crossings" else ["first_seconds", "last_seconds"]
                rows = [[one[0], one[1], self.names[one[4]], *map(_cell, one[2:4])] for one in found]
                write_table(self.out / f"{name}.csv", [[title, "track", "class", *ends], *rows])
        if "mots" in self.formats:
            self._write_mots()
        if "youtube-vis" in self.formats:
            self._write_youtube_vis()
        if self.video is not None:
            self.video.save(self.out / "video" / f"{self.name}.mp4")
        self._write_page(tracks, objects)
        self.database.close()
        return {name: count for name, count in objects.items() if count}

    def _rows(self, query: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        return self.database.execute(query, values)

    def _add_stays(self, stays: Iterable[Stay]) -> None:
        rows = [(one.zone, one.track, one.first, one.last) for one in stays]
        self.database.executemany("INSERT INTO stays VALUES (?, ?, ?, ?)", rows)

    def _write_counts(self) -> dict[str, int]:
        """Write ``counts.csv``, and return the number of different objects of each class."""
        of_class = "JOIN tracks ON id = track WHERE tracks.category = ?"
        at_once = f"SELECT COUNT(*) AS n FROM instances {of_class} GROUP BY frame"
        crossing = f"SELECT COUNT(*) FROM crossings {of_class} AND line = ? AND direction = ?"
        staying = f"SELECT COUNT(DISTINCT track) FROM stays {of_class} AND zone = ?"
        queries: dict[str, tuple[str, tuple[Any, ...]]] = {
            "objects": ("SELECT COUNT(*) FROM tracks WHERE category = ?", ()),
            "most_at_once": (f"SELECT COALESCE(MAX(n), 0) FROM ({at_once})", ()),
        }
        for line in range(1, len(self.places.lines) + 1):
            queries |= {f"line_{line}_to_the_{side}": (crossing, (line, side)) for side in ("right", "left")}
        for zone in range(1, len(self.places.zones) + 1):
            queries[f"zone_{zone}"] = staying, (zone,)
        table = [
            [name, *(next(self._rows(query, category, *values))[0] for query, values in queries.values())]
            for category, name in self.names.items()
        ]
        write_table(self.out / "counts.csv", [["class", *queries], *table])
        return {row[0]: row[1] for row in table}

    def _write_instances(self) -> None:
        """Write ``instances.csv``, ``results.json`` and ``images.json``."""
        columns = ["image", "track", "class", "score", "x1", "y1", "x2", "y2", "area", "seconds"]
        rows = (
            [self._file_name(frame), track, self.names[category], f"{score:.4f}", *box, _cell(seconds)]
            for frame, seconds, _, _, track, category, score, *box, _ in self._rows(
                f"{INSTANCES} frame, instances.score DESC"
            )
        )
        write_table(self.out / "instances.csv", _first(columns, rows))
        records = (
            {
                "image_id": frame + 1,
                "category_id": category,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": score,
                "segmentation": {"size": [height, width], "counts": counts},
                "track_id": track,
            }
            for frame, _, height, width, track, category, score, x1, y1, x2, y2, _, counts in self._rows(
                f"{INSTANCES} frame, instances.score DESC"
            )
        )
        _write_list(self.out / "results.json", None, "", records)
        entries = (
            {
                "id": frame + 1,
                "file_name": self._file_name(frame),
                "height": height,
                "width": width,
                "video_id": 1,
                "frame_id": frame,
                "seconds": seconds,
            }
            for frame, seconds, height, width in self._rows("SELECT * FROM frames ORDER BY frame")
        )
        info = {"score": self.thresholds.score, "class_scores": dict(self.thresholds.class_scores)}
        start = {"info": info, "videos": [{"id": 1, "name": self.name}], "categories": self._categories()}
        _write_list(self.out / "images.json", {**start, "annotations": []}, "images", entries)

    def _write_mots(self) -> None:
        """Write ``mots/NAME.txt`` (Voigtlaender et al. 2019), where no two masks share a pixel: the best is on top."""
        with atomic_write(self.out / "mots" / f"{self.name}.txt") as file:
            rows = self._rows(f"{INSTANCES} frame, instances.score DESC")
            for frame, found in groupby(rows, key=lambda row: row[0]):
                best = list(found)
                masks = disjoint([{"size": list(row[2:4]), "counts": row[-1]} for row in best])
                for (_, _, height, width, track, category, *_), mask in zip(best, masks, strict=True):
                    if mask_area(mask):
                        file.write(f"{frame} {track} {category} {height} {width} {mask['counts']}\n".encode())

    def _write_youtube_vis(self) -> None:
        """Write ``youtube_vis.json``: the masks of each object in all frames, None where it is not seen."""
        frames = [frame for (frame,) in self._rows("SELECT frame FROM frames ORDER BY frame")]
        height, width = next(self._rows("SELECT height, width FROM frames ORDER BY frame"), (0, 0))
        video = {"id": 1, "name": self.name, "height": height, "width": width, "length": len(frames)}
        start = {"videos": [{**video, "file_names": [self._file_name(frame) for frame in frames]}]}
        start["categories"] = self._categories()

        def annotation(track: int, rows: Iterable[tuple[Any, ...]]) -> dict[str, Any]:
            found = {row[0]: coco_object({"size": list(row[2:4]), "counts": row[-1]}) for row in rows}
            category, score = next(self._rows("SELECT category, score FROM tracks WHERE id = ?", track))
            size = {"height": height, "width": width, "length": len(frames), "iscrowd": 0}
            values = {
                f"{name}s": [found[frame][name] if frame in found else None for frame in frames]
                for name in ("segmentation", "bbox", "area")
            }
            return {"id": track, "video_id": 1, "category_id": category, "score": score, **size, **values}

        tracks = groupby(self._rows(f"{INSTANCES} track, frame"), key=lambda row: int(row[4]))
        annotations = (annotation(track, rows) for track, rows in tracks)
        _write_list(self.out / "youtube_vis.json", start, "annotations", annotations)

    def _write_page(self, tracks: Sequence[tuple[Any, ...]], objects: dict[str, int]) -> None:
        """Write ``index.html`` and the filmstrips."""
        for track in tracks:
            self.filmstrips.save(track[0], self.out / "tracks" / f"{track[0]}.jpg")
        frames, end = next(self._rows("SELECT COUNT(*), COALESCE(MAX(seconds), 0) FROM frames"))
        colors = {track[0]: PALETTE.by_idx(color_of(track[0])).as_hex() for track in tracks}
        values = {"tracks": tracks, "colors": colors, "objects": objects, "frames": frames, "end": end or 1}
        page = PAGES.get_template("tracks.html").render(title=self.name, **values)
        with atomic_write(self.out / "index.html") as file:
            file.write(page.encode(errors="replace"))

    def _file_name(self, frame: int) -> str:
        return f"{self.name}/{frame:06d}.jpg"

    def _categories(self) -> list[dict[str, Any]]:
        return [{"id": category, "name": name} for category, name in self.names.items()]


def disjoint(masks: list[Rle]) -> list[Rle]:
    """Masks of one image without the pixels that an earlier one has; those of which nothing is left are empty."""
    shared = coco_mask.iou(masks, masks, [False] * len(masks)) if masks else np.zeros((0, 0))
    if not np.triu(shared, 1).any():
        return masks
    taken = np.zeros(masks[0]["size"], bool)
    free = []
    for mask in masks:
        left = decode_mask(mask) & ~taken
        taken |= left
        free.append(encode_mask(left))
    return free


def _write_list(path: Path, start: dict[str, Any] | None, name: str, items: Iterable[Any]) -> None:
    """Write a JSON file that is a list, or an object that ends in one, an item after the other."""
    before, end = ("[", "]") if start is None else (f'{json.dumps(start)[:-1]}, "{name}": [', "]}")
    with atomic_write(path) as file:
        file.write(before.encode())
        for index, item in enumerate(items):
            file.write(f"{',' * (index > 0)}\n{json.dumps(item)}".encode())
        file.write(f"{end}\n".encode())


def _first(row: Sequence[Any], rows: Iterable[Sequence[Any]]) -> Iterator[Sequence[Any]]:
    yield row
    yield from rows


def _cell(value: Any) -> Any:
    return f"{value:.3f}" if isinstance(value, float) else value
