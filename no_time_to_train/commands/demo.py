"""``demo``: the three stages on drawn scenes with the nano networks."""

import shlex
from pathlib import Path

from no_time_to_train.benchmarks.own_data_set import CONFIG
from no_time_to_train.commands.options import NetworkOptions, ReferenceOptions
from no_time_to_train.commands.segment import segment
from no_time_to_train.errors import UserError
from no_time_to_train.ranges import Positive, Seed


def demo(*, n_shot: Positive = 5, images: Positive = 24, seed: Seed = 0, out: Path = Path("demo")) -> None:
    """Try the method with nothing to download: drawn scenes, small networks, the real stages.

    Args:
        n_shot: References per class.
        images: Target images.
        seed: Seed of the scenes and the references.
        out: Folder for everything that is written.

    Examples:
        no-time-to-train demo --n-shot 1 --images 8 --out /tmp/demo
    """
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / CONFIG).exists())):
        raise UserError(f"{out} holds something that is not a demo: choose another --out")

    from no_time_to_train.demo.run_demo import POINTS_PER_SIDE, run_demo

    shown = run_demo(out, n_shot, images, seed)
    references, folder = out / "examples.json", out / "segment"
    words = ["--nano", "--references", str(references), "--points-per-side", str(POINTS_PER_SIDE)]
    words += ["--out", str(folder), "--overwrite", "--images", *shown]
    print("\nFor your own photos, with the official networks instead of --nano:")
    print(f"$ no-time-to-train segment {shlex.join(words)}", flush=True)
    networks = NetworkOptions(nano=True, points_per_side=POINTS_PER_SIDE)
    segment(references=ReferenceOptions(references), images=shown, out=folder, overwrite=True, networks=networks)
    print(f"\nopen {out / 'index.html'} and {folder / 'index.html'} in a browser")
