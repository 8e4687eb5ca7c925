"""``results filter``: other thresholds for results that ``segment`` wrote, without running it again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from no_time_to_train.commands.options import LabelFormat
from no_time_to_train.errors import UserError
from no_time_to_train.files import real_path
from no_time_to_train.pipeline.replace_folder import check_output, check_results, put_back
from no_time_to_train.pipeline.summary import Thresholds
from no_time_to_train.ranges import Fraction, Positive


def filter(
    results: Path,
    *,
    threshold: Fraction | None = None,
    class_score: Sequence[str] = (),
    format: Sequence[Literal[LabelFormat, "video"]] = (),
    link: bool = False,
    out: Path | None = None,
    overwrite: bool = False,
    max_pixels: Positive | None = None,
) -> None:
    """Choose other thresholds for the results of segment: all files again in seconds, without the networks.

    Instances that were left out come back where the threshold is lowered. Labels that were corrected in the folder's
    label files are lost: copy those first, or give --out. Of the results of track, objects are left out whose mean
    score is lower; none comes back.

    Args:
        results: The --out folder of segment or of track.
        threshold: The lowest score of an instance, from 0 to 1. Default: as before.
        class_score: The lowest score of one class: NAME=X. May be given several times.
        format: Label files and videos to write as well. Default: those that the folder has.
        link: With --format, make symbolic links to the images. Default: hard links, or copies on another disk.
        out: Folder for the filtered results. Default: they replace those in the folder.
        overwrite: Replace finished results in --out.
        max_pixels: Read images of up to this many pixels.

    Examples:
        no-time-to-train results filter out/ --threshold 0.37 --class-score boat=0.5
        no-time-to-train results filter out/ --threshold 0.37 --format yolo --out better/
        no-time-to-train results filter tracks/ --threshold 0.4
    """
    put_back(results)
    if not results.is_dir():
        raise UserError(f"there is no folder {results}: give the --out folder of segment or track")
    thresholds, of_tracks = Thresholds.parse(threshold or 0, class_score), (results / "tracks.csv").is_file()
    in_place = out is None or real_path(out) == real_path(results)
    target = results if out is None else out
    if not in_place:
        check_output(target, overwrite)
    _, classes = check_results(results, *([] if of_tracks else ["all_results.json"]))
    thresholds.check_names(classes)
    if in_place:
        check_output(target, overwrite=True)

    if of_tracks:
        if format or (threshold is None and not class_score):
            raise UserError(f"{results} holds tracks: give --threshold or --class-score, and no --format")

        from no_time_to_train_extras.video.filter_tracks import filter_tracks

        kept = filter_tracks(results, target, threshold or 0.0, class_score, overwrite or in_place)
        print(f"{kept}; open {target / 'index.html'}")
        return

    from no_time_to_train.data.images import allow_pixels
    from no_time_to_train.pipeline.filter_results import filter_results

    if max_pixels:
        allow_pixels(max_pixels)
    summary = filter_results(results, target, threshold, class_score, format, overwrite or in_place, link)
    print(f"{summary}{summary.advice(target)}; open {target / 'index.html'}")
