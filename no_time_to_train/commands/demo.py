"""``demo``: the three stages on drawn scenes with the nano networks, or photographs with official ones."""

import shlex
from pathlib import Path

from no_time_to_train.benchmarks.own_data_set import CONFIG
from no_time_to_train.commands.options import NetworkOptions, ReferenceOptions
from no_time_to_train.commands.segment import segment
from no_time_to_train.errors import UserError
from no_time_to_train.files import CONFIGURATION, check_replaceable
from no_time_to_train.ranges import Positive, Seed

#: The folder of the photographs in that of the demo, and the networks that look at them.
PHOTOS, OFFICIAL = "photos", NetworkOptions(preset="fast")


def demo(
    *, n_shot: Positive = 5, images: Positive = 24, seed: Seed = 0, photos: bool = False, out: Path = Path("demo")
) -> None:
    """Try the method with nothing to download: drawn scenes, small networks, the real stages.

    Args:
        n_shot: References per class.
        images: Target images.
        seed: Seed of the scenes and the references.
        photos: Download three photographs and the small official networks (245 MB) instead, and find objects there.
        out: Folder for everything that is written.

    Examples:
        no-time-to-train demo --n-shot 1 --images 8 --out /tmp/demo
        no-time-to-train demo --photos
    """
    names = {path.name for path in out.glob("[!.]*")}
    if out.exists() and (not out.is_dir() or (CONFIG not in names and names - {PHOTOS, "segment"})):
        raise UserError(f"{out} holds something that is not a demo: choose another --out")
    check_replaceable(out / CONFIG, CONFIGURATION)
    folder = out / "segment"
    if photos:
        from no_time_to_train.demo.photographs import fetch_photos

        examples, networks = ReferenceOptions(reference=fetch_photos(out / PHOTOS)), OFFICIAL
        shown = [str(out / PHOTOS)]
        words = ["--preset", "fast", *(word for one in examples.reference for word in ("--reference", one))]
    else:
        from no_time_to_train.demo.run_demo import POINTS_PER_SIDE, run_demo

        shown = run_demo(out, n_shot, images, seed)
        examples = ReferenceOptions(out / "examples.json")
        networks = NetworkOptions(nano=True, points_per_side=POINTS_PER_SIDE)
        words = ["--nano", "--references", str(out / "examples.json"), "--points-per-side", str(POINTS_PER_SIDE)]
        print("\nFor your own photos, with the official networks instead of --nano:")
    words += ["--out", str(folder), "--overwrite", "--images", *shown]
    print(f"$ no-time-to-train segment {shlex.join(words)}", flush=True)
    segment(references=examples, images=shown, out=folder, overwrite=True, networks=networks)
    pages = [folder / "index.html"] if photos else [out / "index.html", folder / "index.html"]
    print(f"\nopen {' and '.join(map(str, pages))} in a browser")
