"""``demo``: the three stages on drawn scenes with the nano networks."""

from pathlib import Path

from no_time_to_train.benchmarks.own_data_set import CONFIG
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

    from no_time_to_train.demo.run_demo import run_demo

    run_demo(out, n_shot, images, seed)
