"""A long run over drawn images, and the memory that it takes while it goes.

``python -m timing.soak`` runs the test stage over 2,000 images with the nano networks and a coarse grid of prompts,
and prints the memory of its processes in each tenth of the run. It ends with an error where it grows.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from no_time_to_train.demo.run_demo import CONFIG, STAGES, run_stages, write_inputs

GROWTH = 1.05  # of the last tenth over the second; the first is still warming up


def memory_of(process: int) -> int:
    """Bytes that a process and its children have in memory, each shared page counted once a process."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    status = Path(f"/proc/{process}/status").read_text()
    own = next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:")), 0)
    return own + sum(map(memory_of, map(int, children)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--points-per-side", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "demo"
        write_inputs(out, shots=5, images=options.images, seed=0)
        grid = ["--model.init_args.model_cfg.sam2_infer_cfgs.points_per_side", str(options.points_per_side)]
        run_stages(out, STAGES[:2])
        command = ["test", "--config", str(out / CONFIG), "--ckpt_path", str(out / "memory_postprocessed.ckpt"), *grid]
        process = subprocess.Popen([sys.executable, "-m", "no_time_to_train", *command], stdout=subprocess.DEVNULL)
        lines = out / ".results.json.run" / "1-0.lines"
        samples: list[tuple[int, int]] = []
        while process.poll() is None:
            time.sleep(1)
            try:
                done = lines.read_bytes().count(b"\n")
                samples.append((done, memory_of(process.pid)))
            except OSError:  # not begun, or over
                continue
        if process.returncode:
            raise SystemExit(f"error: the run ended with {process.returncode}")
    tenths = [max((m for n, m in samples if n * 10 // options.images == k), default=0) for k in range(10)]
    for tenth, memory in enumerate(tenths, 1):
        print(f"images to {tenth * options.images // 10:>6}: {memory / 1e6:.0f} MB")
    if tenths[9] > GROWTH * tenths[1]:
        raise SystemExit("error: memory grows")


if __name__ == "__main__":
    main()
