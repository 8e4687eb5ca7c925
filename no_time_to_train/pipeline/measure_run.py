"""The run behind ``no-time-to-train references measure``."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from no_time_to_train.analysis.reference_report import ReferenceReport
from no_time_to_train.analysis.reference_report_page import write_report
from no_time_to_train.api.measurement import Measurement
from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
from no_time_to_train.file_hashes import sha256_if_readable
from no_time_to_train.pipeline.journal import Journal
from no_time_to_train.pipeline.segment_images import depends_on


def measure_references(
    segmenter: ReferenceSegmenter, measurement: Measurement, out: Path, share: Callable[[Journal], None] | None = None
) -> tuple[ReferenceReport, Path]:
    """Measure references image by image, write the report and its page to a folder, and return it with the page's path.

    A run that was stopped or killed resumes with the images that its journal lacks. ``share`` has several processes
    look at all of them, and returns once the journal has them.
    """
    journal, count = Journal(out / "reference_report.json"), len(measurement)
    with journal.run({**depends_on(segmenter, measurement.bank), "images": _hash_images(measurement)}):
        done = journal.done(count)
        if done:
            print(f"resuming: {len(done)} of {count} images are done", flush=True)
        try:
            if share is not None:
                share(journal)
            else:
                for index in tqdm(sorted({*range(count)}.difference(done)), "checking references", unit=" image"):
                    journal.add(index, measurement.record(index))
        except KeyboardInterrupt:
            print(f"{len(journal.items)} of {count} images are done; run the same command again to resume", flush=True)
            raise
        report = measurement.report(journal.records(count, "images"))
        return report, write_report(report, out)


def _hash_images(measurement: Measurement) -> str:
    """The SHA-256 of the images, with the masks of the references in them."""
    images: Any = measurement.bank.images
    known = [*((one.name, sha256_if_readable(one.name), one.mask) for one in images), measurement.images]
    return hashlib.sha256(repr(known).encode("utf-8", "surrogateescape")).hexdigest()
