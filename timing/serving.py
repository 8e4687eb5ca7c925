"""Fifty programs that send images to a server at once.

``python -m timing.serving`` starts ``serve`` with the nano networks, lets each program send drawn images one after the
other, again where the server says to come later, and prints how long answers took and what memory the server needed. It
fails where an answer is missing or another one than the first for its image, or where the memory grows.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np

from no_time_to_train.demo.scenes import NOVEL_CLASSES, write_coco
from timing.measure import process_status

#: The memory at the end over that after the first fifth of the images, at most.
GROWTH = 1.1

#: Images that are drawn, and the seed that draws them.
DRAWN, SEED = 10, 777


def send(url: str, image: bytes) -> tuple[bytes, int, float]:
    """Send an image until it is accepted.

    Returns:
        The answer, how often the server was full, and the seconds from the request that it accepted to the answer.
    """
    full = 0
    while True:
        begin = time.monotonic()
        try:
            with urlopen(Request(f"{url}/segment", image), timeout=600) as answer:
                return answer.read(), full, time.monotonic() - begin
        except HTTPError as error:
            if error.code != 429:
                raise
            full += 1
            time.sleep(min(float(error.headers["retry-after"]), 5))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--clients", type=int, default=50, help="Programs that send at the same time.")
    parser.add_argument("--images", type=int, default=1000, help="Images that they send together.")
    parser.add_argument("--queue", type=int, default=64, help="The most images that wait.")
    parser.add_argument("--port", type=int, default=8765, help="The server's port.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_coco(Path(folder, "references"), NOVEL_CLASSES, 3, SEED + 1)
        write_coco(Path(folder, "photos"), NOVEL_CLASSES, DRAWN, SEED)
        photos = [path.read_bytes() for path in sorted(Path(folder, "photos/images").iterdir())]
        given = f"--references {folder}/references --port {options.port} --queue {options.queue}"
        command = f"serve --nano --device cpu --points-per-side 8 {given}"
        with subprocess.Popen([sys.executable, "-m", "no_time_to_train", *command.split()], env=os.environ) as server:
            measure(server, f"http://127.0.0.1:{options.port}", photos, options.clients, options.images)
            server.send_signal(signal.SIGTERM)


def measure(server: "subprocess.Popen[bytes]", url: str, photos: list[bytes], clients: int, images: int) -> None:
    """Send all images, and print what it took."""
    while server.poll() is None:
        try:
            expected = [send(url, photo)[0] for photo in photos]
            break
        except OSError:  # it does not listen yet
            time.sleep(0.2)
    wrong, full, seconds, memory, begin = 0, 0, [], [], time.monotonic()
    with ThreadPoolExecutor(clients) as pool:
        numbers = list(islice(cycle(range(len(photos))), images))
        for number, found in zip(numbers, pool.map(lambda number: send(url, photos[number]), numbers), strict=True):
            wrong += found[0] != expected[number]
            full += found[1]
            seconds.append(found[2])
            memory.append(process_status("VmRSS", server.pid) / 1e6)
    rate = images / (time.monotonic() - begin)
    early, late = max(memory[: images // 5]), max(memory[-images // 5 :])
    p50, p95 = np.percentile(seconds, [50, 95])
    print(f"{images} images from {clients} programs: {rate:.2f} images/s, {wrong} wrong, {full} times full")
    print(f"an answer took {p50:.1f} s (p50), {p95:.1f} s (p95), {max(seconds):.1f} s at most")
    print(f"memory: {early:.0f} MB at first, {late:.0f} MB at last")
    if wrong or late > GROWTH * early:
        raise SystemExit("error: an answer differs, or the memory grows")


if __name__ == "__main__":
    main()
