"""What one browser shows of a video: its time line, and the tracks in it."""

from typing import Any

from no_time_to_train.visual.drawing import PALETTE
from no_time_to_train_extras.app.lists import address
from no_time_to_train_extras.app.photos import Thumbnails
from no_time_to_train_extras.app.video_frames import Video
from no_time_to_train_extras.app.view import scene_shape
from no_time_to_train_extras.app.workspace import Workspace, same_memory
from no_time_to_train_extras.video.filmstrips import color_of

#: Pictures above the time line.
PICTURES = 10


def scene_video(workspace: Workspace, thumbnails: Thumbnails, name: str | None) -> dict[str, Any] | None:
    """The time line of the video that a frame is of; None for a photo."""
    found = workspace.videos.of(name)
    if found is None:
        return None
    video, number = found
    tracking, tracks = workspace.tracking, workspace.tracking.tracks(video)
    count = max(len(video.times), number + 1)
    shown = {round(step * (count - 1) / (PICTURES - 1)) for step in range(PICTURES)} if video.complete else set()
    rows, masks = ({}, []) if tracks is None else (tracks.rows, tracks.masks.get(number, []))
    return {
        "number": number,
        "count": count,
        "seconds": seconds(video, number),
        "complete": video.complete,
        "problem": video.problem
        or video.changed
        or tracking.problems.get(video.stem)
        or (f"video {video.name} {video.lacks}" if video.lacks and tracking.video is not video else ""),
        "strip": [[one, address(thumbnails.file(video.frame_name(one)))] for one in sorted(shown)],
        "chosen": [at[1] for at in map(workspace.videos.of, list(workspace.photos)) if at and at[0] is video],
        "tracking": tracking.progress if tracking.video is video else None,
        "tracks": [
            {**row, "from": seconds(video, row["first"]), "to": seconds(video, row["last"])} for row in rows.values()
        ],
        "found": tracks is not None,
        "outdated": tracks is not None and not same_memory(tracks.memory, workspace.segmenter.memory),
        "outlines": [
            scene_shape(mask, PALETTE.by_idx(color_of(track)), f"{rows[track]['label']} {track}")
            for mask, track in masks
        ],
    }


def seconds(video: Video, number: int) -> float:
    """When a frame is shown, as far as it is known."""
    return round(video.times[number], 2) if number < len(video.times) else 0.0
