"""The files that ``track`` writes. Whatever the length of a video, little of them is in memory."""

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, groupby, product
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import numpy as np
from jinja2 import ChoiceLoader, PackageLoader
from pycocotools import mask as coco_mask

from no_time_to_train.data.memory_files import save_memory
from no_time_to_train.data.rle import Rle, decode_mask, encode_mask, mask_area, mask_box
from no_time_to_train.errors import UserError
from no_time_to_train.files import atomic_write
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.pipeline.output_folder import write_table
from no_time_to_train.visual.drawing import PALETTE
from no_time_to_train.visual.html import TEMPLATES
from no_time_to_train_extras.video.crossings import Points, crossings, stays
from no_time_to_train_extras.video.filmstrips import Filmstrips, VideoFile, color_of, draw_tracks
from no_time_to_train_extras.video.track_frames import TrackedFrame

#: The page of the tracks extends that of the package.
PAGES = TEMPLATES.overlay(
    loader=ChoiceLoader([PackageLoader("no_time_to_train_extras.video"), PackageLoader("no_time_to_train.visual")])
)

TABLES = """
CREATE TABLE classes (category INTEGER PRIMARY KEY, class);
CREATE TABLE frames (frame INTEGER PRIMARY KEY, seconds, image, height, width);
CREATE TABLE instances (frame, track, vote, score, x1, y1, x2, y2, area, rle, box);
CREATE TABLE crossings (line, track, seconds, direction);
CREATE TABLE stays (zone, track, enters, leaves);
"""

#: Once all frames are known. In SQLite, the vote is that of the row with the largest sum of scores.
SUMS = """
CREATE INDEX by_track ON instances (track, frame);
CREATE INDEX by_frame ON instances (frame, score);
CREATE TABLE tracks AS WITH
    sums AS (SELECT track, vote, SUM(score) AS total FROM instances GROUP BY track, vote),
    best AS (SELECT track, vote, MAX(total) FROM sums GROUP BY track),
    lives AS (SELECT track, MIN(seconds) AS first, MAX(seconds) AS last, COUNT(*) AS frames, AVG(score) AS mean_score
              FROM instances JOIN frames USING (frame) GROUP BY track)
SELECT track, class, category, first, last, frames, mean_score
FROM lives JOIN best USING (track) JOIN classes ON category = vote ORDER BY track;
CREATE UNIQUE INDEX by_number ON tracks (track);
CREATE VIEW found AS SELECT * FROM instances JOIN frames USING (frame) JOIN tracks USING (track);
"""

TRACK_ROWS = "SELECT track, class, ROUND(first, 3), ROUND(last, 3), frames, ROUND(mean_score, 4) FROM tracks"
INSTANCE_ROWS = """SELECT image, track, class, ROUND(score, 4), x1, y1, x2, y2, area, ROUND(seconds, 3)
FROM found ORDER BY frame, score DESC"""
RESULTS = """SELECT JSON_OBJECT('image_id', frame + 1, 'category_id', category, 'track_id', track, 'score', score,
'bbox', JSON_ARRAY(x1, y1, x2 - x1, y2 - y1), 'segmentation', JSON(rle)) FROM found ORDER BY frame, score DESC"""
IMAGES = """SELECT JSON_OBJECT('id', frame + 1, 'file_name', image, 'height', height, 'width', width, 'video_id', 1,
'frame_id', frame, 'seconds', seconds) FROM frames ORDER BY frame"""

CROSSING_ROWS = """SELECT line, track, class, ROUND(seconds, 3), direction
FROM crossings JOIN tracks USING (track) ORDER BY seconds, line"""
STAY_ROWS = """SELECT zone, track, class, ROUND(enters, 3), ROUND(leaves, 3)
FROM stays JOIN tracks USING (track) ORDER BY enters, zone"""

#: The masks of a track in all frames, null where it is not seen.
YOUTUBE_VIS = """SELECT JSON_OBJECT('id', track, 'video_id', 1, 'category_id', category, 'score', mean_score,
'iscrowd', 0, 'segmentations', JSON_GROUP_ARRAY(JSON(rle)), 'bboxes', JSON_GROUP_ARRAY(JSON(box)),
'areas', JSON_GROUP_ARRAY(area))
FROM (SELECT tracks.*, rle, box, area FROM tracks JOIN frames ON tracks.track = ?
      LEFT JOIN instances ON instances.track = tracks.track AND instances.frame = frames.frame ORDER BY frames.frame)"""


@contextmanager
def database_errors() -> Iterator[None]:
    """Report a full disk under the database, whose file is in the system's temporary folder, as a UserError."""
    try:
        yield
    except sqlite3.OperationalError as error:
        place = os.environ.get("SQLITE_TMPDIR", gettempdir())
        raise UserError(f"{place} cannot hold what is in the frames: {error}; TMPDIR names another place") from error


class TrackFiles:
    """Writes what is found in a video: :meth:`add` the frames in their order, then :meth:`finish`.

    ======================= ============================================================================================
    ``tracks.csv``          One line per object: class, first and last second, frames, mean score
    ``counts.csv``          One line per class: different objects, the most at once, crossings of each line, and objects
                            in each zone
    ``instances.csv``       One line per object and frame
    ``results.json``        COCO results with ``track_id``; ``images.json`` has their frames and categories
    ``crossings.csv``       One line per crossing of a line
    ``stays.csv``           One line per stay in a zone
    ``mots/NAME.txt``       With the format "mots"
    ``youtube_vis.json``    With the format "youtube-vis"
    ``video/NAME.mp4``      With the format "video"
    ``references.memory``   The memory
    ``index.html``          The objects with their filmstrips, which are in ``tracks/``
    ======================= ============================================================================================

    Args:
        out: The folder, to which no other process writes.
        name: What the video is called.
        lines: The two ends of each line, x and y in pixels.
        zones: The corners of each zone, x and y in pixels.
        rate: Frames per second of the annotated video.
    """

    def __init__(
        self,
        out: Path,
        name: str,
        memory: MemoryBank,
        lines: Sequence[Points] = (),
        zones: Sequence[Points] = (),
        formats: Sequence[str] = (),
        rate: float = 25.0,
    ) -> None:
        self.out, self.name, self.memory = out, name, memory
        self.lines, self.zones, self.formats = lines, zones, formats
        self.database = sqlite3.connect("", check_same_thread=False)  # on the disk, and deleted when it is closed
        self.database.executescript(TABLES)
        self._insert("classes", [(one.id, one.name) for one in memory.categories])
        self.filmstrips = Filmstrips(self.database)
        self.save_filmstrip: Callable[[int, Path], None] = self.filmstrips.save
        self.video = VideoFile(rate) if "video" in formats else None

    def add(self, frame: TrackedFrame) -> None:
        """Add the next frame."""
        height, width = frame.instances.image.shape[:2]
        self.add_records(frame.number, frame.seconds, (height, width), frame.record["results"])
        self.filmstrips.add(frame)
        if self.video is not None:
            self.video.add(draw_tracks(frame), frame.seconds)

    def add_records(
        self, number: int, seconds: float, size: tuple[int, int], records: Sequence[dict[str, Any]]
    ) -> None:
        """Add the next frame without its pixels.

        Args:
            size: Its height and width.
            records: COCO results with ``track_id``.
        """
        self._insert("frames", [(number, seconds, f"{self.name}/{number:06d}.jpg", *size)])
        rows = []
        for record in records:
            rle, of_track = record["segmentation"], (record["track_id"], record["category_id"], record["score"])
            x, y, w, h = map(int, box := mask_box(rle))
            corners = x, y, x + w - 1, y + h - 1  # the last row and column, as in the results of the method
            rows.append((number, *of_track, *corners, mask_area(rle), json.dumps(rle), json.dumps(box)))
        self._insert("instances", rows)

    def finish(self) -> dict[str, int]:
        """Write the files, and return the number of different objects of each class that has any."""
        self.database.executescript(SUMS)
        self._find_places()
        save_memory(self.memory, self.out / "references.memory")
        self._table("tracks", "track class first_seconds last_seconds frames mean_score", TRACK_ROWS)
        self._table("instances", "image track class score x1 y1 x2 y2 area seconds", INSTANCE_ROWS)
        if self.lines:
            self._table("crossings", "line track class seconds direction", CROSSING_ROWS)
        if self.zones:
            self._table("stays", "zone track class first_seconds last_seconds", STAY_ROWS)
        objects = self._write_counts()
        categories = [{"id": one.id, "name": one.name} for one in self.memory.categories]
        video = {"id": 1, "name": self.name}
        start: dict[str, Any] = {"videos": [video], "categories": categories}
        _write_list(self.out / "results.json", None, "", self.database.execute(RESULTS))
        places = {"lines": self.lines, "zones": self.zones}
        of_frames = {"info": places, **start, "annotations": []}
        _write_list(self.out / "images.json", of_frames, "images", self.database.execute(IMAGES))
        if "mots" in self.formats:
            self._write_mots()
        if "youtube-vis" in self.formats:
            frames = self.database.execute("SELECT height, width, image FROM frames ORDER BY frame").fetchall()
            video |= {"height": frames[0][0], "width": frames[0][1], "length": len(frames)} if frames else {}
            video["file_names"] = [one[2] for one in frames]
            tracks = self.database.execute("SELECT track FROM tracks ORDER BY track")
            rows = chain.from_iterable(self.database.execute(YOUTUBE_VIS, one) for one in tracks)
            _write_list(self.out / "youtube_vis.json", start, "annotations", rows)
        if self.video is not None:
            self.video.save(self.out / "video" / f"{self.name}.mp4")
        self._write_page(objects)
        self.database.close()
        return objects

    def _insert(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if rows:
            self.database.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)

    def _table(self, name: str, columns: str, query: str) -> None:
        """Write the rows of a query as a CSV file."""
        write_table(self.out / f"{name}.csv", chain([columns.split()], self.database.execute(query)))

    def _find_places(self) -> None:
        """Find where the centers of the objects' boxes cross lines and stay in zones."""
        centers = "SELECT track, seconds, (x1 + x2) / 2.0, (y1 + y2) / 2.0 FROM found ORDER BY track, frame"
        rows = self.database.execute(centers if self.lines or self.zones else f"{centers} LIMIT 0")
        for track, seen in groupby(rows, key=lambda row: row[0]):
            table = np.array(list(seen))
            seconds, path = table[:, 1].tolist(), table[:, 2:]
            for number, line in enumerate(self.lines, start=1):
                found = [(number, track, seconds[index], side) for index, side in crossings(path, line)]
                self._insert("crossings", found)
            for number, zone in enumerate(self.zones, start=1):
                self._insert("stays", [(number, track, seconds[i], seconds[j]) for i, j in stays(path, zone)])

    def _write_counts(self) -> dict[str, int]:
        """Write ``counts.csv``, and return the number of different objects of each class that has any."""
        queries = {
            "objects": "SELECT class, COUNT(*) FROM tracks",
            "most_at_once": "SELECT class, MAX(n) FROM (SELECT class, COUNT(*) AS n FROM found GROUP BY class, frame)",
        }
        for line, side in product(range(1, len(self.lines) + 1), ("right", "left")):
            crossed = f"crossings JOIN tracks USING (track) WHERE line = {line} AND direction = '{side}'"
            queries[f"line_{line}_to_the_{side}"] = f"SELECT class, COUNT(*) FROM {crossed}"
        for zone in range(1, len(self.zones) + 1):
            stayed = f"stays JOIN tracks USING (track) WHERE zone = {zone}"
            queries[f"zone_{zone}"] = f"SELECT class, COUNT(DISTINCT track) FROM {stayed}"
        counts = {name: dict(self.database.execute(f"{query} GROUP BY class")) for name, query in queries.items()}
        names = [category.name for category in self.memory.categories]
        rows = [[name, *(count.get(name, 0) for count in counts.values())] for name in names]
        write_table(self.out / "counts.csv", [["class", *counts], *rows])
        return counts["objects"]

    def _write_mots(self) -> None:
        """Write ``mots/NAME.txt`` (Voigtlaender et al. 2019), where no two masks share a pixel: the best is on top."""
        rows = self.database.execute("SELECT frame, track, category, rle FROM found ORDER BY frame, score DESC")
        with atomic_write(self.out / "mots" / f"{self.name}.txt") as file:
            for _, one_frame in groupby(rows, key=lambda row: row[0]):
                best = list(one_frame)
                for (*numbers, _), rle in zip(best, disjoint([json.loads(row[3]) for row in best]), strict=True):
                    if mask_area(rle):
                        file.write(" ".join(map(str, [*numbers, *rle["size"], rle["counts"]])).encode() + b"\n")

    def _write_page(self, objects: dict[str, int]) -> None:
        """Write ``index.html`` and the filmstrips."""
        tracks = self.database.execute(TRACK_ROWS).fetchall()
        for track in tracks:
            self.save_filmstrip(track[0], self.out / "tracks" / f"{track[0]}.jpg")
        ((frames, end),) = self.database.execute("SELECT COUNT(*), COALESCE(MAX(seconds), 0) FROM frames")
        colors = {track[0]: PALETTE.by_idx(color_of(track[0])).as_hex() for track in tracks}
        counts = {category.name: objects.get(category.name, 0) for category in self.memory.categories}
        values = {"tracks": tracks, "colors": colors, "objects": counts, "frames": frames, "end": end or 1}
        with atomic_write(self.out / "index.html") as file:
            file.write(PAGES.get_template("tracks.html").render(title=self.name, **values).encode(errors="replace"))


def disjoint(masks: list[Rle]) -> list[Rle]:
    """Masks of one image without the pixels that an earlier one has; those of which nothing is left are empty."""
    if not np.triu(coco_mask.iou(masks, masks, [False] * len(masks)), 1).any():
        return masks
    taken, free = np.zeros(masks[0]["size"], bool), []
    for mask in map(decode_mask, masks):
        free.append(encode_mask(mask & ~taken))
        taken |= mask
    return free


def _write_list(path: Path, start: dict[str, Any] | None, name: str, rows: Iterable[tuple[Any, ...]]) -> None:
    """Write a JSON file that is a list, or an object that ends in one, an item of JSON after the other."""
    before, end = ("[", "]") if start is None else (f'{json.dumps(start)[:-1]}, "{name}": [', "]}")
    with atomic_write(path) as file:
        file.write(before.encode())
        for index, (item,) in enumerate(rows):
            file.write(f"{',' * (index > 0)}\n{item}".encode())
        file.write(f"{end}\n".encode())
