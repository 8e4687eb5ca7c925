"""Write the results of ``track`` again without objects of low scores: what runs behind ``results filter``."""

from collections import defaultdict
from collections.abc import Sequence
from csv import DictReader
from pathlib import Path
from typing import Any

from no_time_to_train.data.coco import whole_number
from no_time_to_train.data.rle import check_size
from no_time_to_train.errors import UserError, plural
from no_time_to_train.files import link_or_copy
from no_time_to_train.pipeline.filter_results import read_folder
from no_time_to_train.pipeline.replace_folder import new_output
from no_time_to_train.pipeline.run_record import FILE_NAME as RECORD
from no_time_to_train.pipeline.summary import Thresholds, count_labels
from no_time_to_train_extras.video.track_files import TrackFiles, database_errors

#: What shows in a folder of tracks that a format was written.
FILES_OF = {"mots": "mots", "youtube-vis": "youtube_vis.json"}


def filter_tracks(folder: Path, out: Path, score: float, class_scores: Sequence[str], overwrite: bool) -> str:
    """Write all files of a folder of tracks again, without the objects whose mean score is below their threshold.

    Filmstrips are kept, and an annotated video is not: it would need the frames.

    Args:
        out: The folder to write, which may be ``folder``.
        score: The lowest mean score of an object.
        class_scores: Those of classes, as NAME=X.
        overwrite: Whether finished results in ``out`` may be replaced.

    Returns:
        What was kept.
    """
    thresholds, (content, memory, results) = Thresholds.parse(score, class_scores), read_folder(folder, "results.json")
    thresholds.check_names(category.name for category in memory.categories)
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    try:
        with (folder / "tracks.csv").open(encoding="utf-8", newline="") as file:
            tracks = {int(row["track"]): (row["class"], float(row["mean_score"])) for row in DictReader(file)}
        kept = {track for track, (label, mean) in tracks.items() if mean >= thresholds.of(label)}
        (video,), frames, places = content["videos"], content["images"], content["info"]
        for frame in frames:
            check_size([frame["height"], frame["width"]])
            whole_number(frame["frame_id"])
            float(frame["seconds"] or 0)
        for record in results:
            if record["track_id"] in kept and "segmentation" in record:
                found[record["image_id"]].append(record)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{folder} does not hold all that track wrote there: {error!r}") from error
    formats = [name for name, part in FILES_OF.items() if (folder / part).exists()]
    had_video = (folder / "video").is_dir()
    with new_output(out, overwrite) as new, database_errors():
        files = TrackFiles(new, video["name"], memory, places["lines"], places["zones"], formats)
        for frame in frames:
            size = frame["height"], frame["width"]
            files.add_records(frame["frame_id"], frame["seconds"], size, found[frame["id"]])
        files.save_filmstrip = lambda track, path: link_or_copy(folder / "tracks" / f"{track}.jpg", path)
        objects = files.finish()
        if (folder / RECORD).is_file():
            link_or_copy(folder / RECORD, new / RECORD)
    left = f"{plural(sum(objects.values()), 'object')} of {len(tracks)}"
    video = " (without the annotated video, which needs the frames)" if had_video else ""
    return f"{left}: {count_labels(objects)}{video}" if objects else left + video
