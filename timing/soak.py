"""The memory that a long run needs over time.

``python -m timing.soak`` runs the test stage on 2,000 drawn images with the nano networks and a coarse grid of points,
and prints the memory of its processes in each tenth of the run. It fails if the memory grows.

``--shm-size 64`` runs it with the ``/dev/shm`` of a Docker container, for which the system must allow namespaces
(``unshare``). ``--address-space 16`` limits what each process may allocate, like ``ulimit -v``.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from no_time_to_train.benchmarks.own_data_set import CONFIG, STAGES, run_stages
from no_time_to_train.demo.run_demo import write_inputs
from timing.measure import process_status

#: The memory of the last tenth over that of the second, at most. The first tenth does not count: caches still fill.
GROWTH = 1.05


def memory_of(process: int) -> int:
    """The bytes that a process and its descendants have in memory; a shared page counts once per process.

    Raises:
        OSError: The process has ended.
    """
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    try:
        own = process_status("VmRSS", process)
    except KeyError:  # it has ended, and its parent does not know yet
        own = 0
    return own + sum(map(memory_of, map(int, children)))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--images", type=int, default=2000, help="Images of the run.")
    parser.add_argument("--points-per-side", type=int, default=8, help="Points per side of the grid.")
    parser.add_argument("--shm-size", type=int, help="MiB of /dev/shm. Default: as it is.")
    parser.add_argument("--address-space", type=int, help="GiB that each process may allocate. Default: any.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "demo"
        write_inputs(out, n_shot=5, images=options.images, seed=0)
        grid = ["--model.init_args.model_cfg.sam2_infer_cfgs.points_per_side", str(options.points_per_side)]
        run_stages(out, STAGES[:2])
        command = ["test", "--config", str(out / CONFIG), "--ckpt_path", str(out / "memory_postprocessed.ckpt"), *grid]
        command = [sys.executable, "-m", "no_time_to_train", *command]
        if options.shm_size:
            mount = f'mount -t tmpfs -o size={options.shm_size}m tmpfs /dev/shm && exec "$@"'
            command = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh", *command]
        if options.address_space:
            resource.setrlimit(resource.RLIMIT_AS, (options.address_space << 30,) * 2)  # the run inherits it
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        journal = out / ".results.json.run"
        samples: list[tuple[int, int]] = []
        while process.poll() is None:
            time.sleep(1)
            try:
                done = sum(1 for _ in journal.glob("*.item"))
                samples.append((done, memory_of(process.pid)))
            except OSError:  # the run has not started to write, or has just ended
                continue
        if process.returncode:
            raise SystemExit(f"error: the run ended with status {process.returncode}")
    tenths = [max((m for n, m in samples if n * 10 // options.images == k), default=0) for k in range(10)]
    for tenth, memory in enumerate(tenths, 1):
        print(f"up to image {tenth * options.images // 10:>6}: {memory / 1e6:.0f} MB")
    if tenths[9] > GROWTH * tenths[1]:
        raise SystemExit("error: the memory grows")


if __name__ == "__main__":
    main()
