"""What commands ask of the system: nothing is written outside the chosen folders, and no network is used (slow)."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Checkpoints, Photo, stage_arguments

#: Calls that change files, and those that reach the network.
CALLS = "%network,open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,truncate"

NETWORKS = "--nano --points-per-side 4 --device cpu"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize(
    "command",
    [
        f"segment --reference thing:photo.png:mask=photo_mask.png --images photo.png --out out {NETWORKS}",
        "memory merge a.memory a.memory --out out/b.memory",
        f"references measure --reference thing:photo.png:mask=photo_mask.png --out out {NETWORKS}",
        f"propose --images photo.png --out out/masks.json {NETWORKS}",
        "test",
    ],
)
def test_commands_write_only_to_their_outputs_and_use_no_network(
    command: str, photo: Photo, memory: Path, nano_checkpoints: Checkpoints, tmp_path: Path
) -> None:
    for name in ("work", "home", "temporary"):
        (tmp_path / name).mkdir()
    for source, name in ((photo.path, "photo.png"), (photo.mask_path, "photo_mask.png"), (memory, "a.memory")):
        shutil.copy(source, tmp_path / "work" / name)
    words = command.split()
    if command == "test":
        words = [*stage_arguments("test", nano_checkpoints, Path("out")), "--ckpt_path", "a.memory"]
    own = {"HOME": f"{tmp_path}/home", "TMPDIR": f"{tmp_path}/temporary", "PYTHONDONTWRITEBYTECODE": "1"}
    path = {"PYTHONPATH": str(Path(__file__).parents[1])}
    strace = ["strace", "-f", "--seccomp-bpf", "-qq", "-y", "-e", f"trace={CALLS}", "-o", tmp_path / "log"]
    subprocess.run(
        [*strace, sys.executable, "-m", "no_time_to_train", *words],
        cwd=tmp_path / "work",
        env={**os.environ, **own, **path},
        check=True,
        capture_output=True,
        timeout=300,
    )
    calls = (tmp_path / "log").read_text().splitlines()
    assert not [call for call in calls if re.search(r"(connect|send\w*)\(.*AF_INET", call)]
    changes = [
        call
        for call in calls
        if not re.search(r"AF_|O_RDONLY|O_PATH| = -1 |\+\+\+|---|resumed>|socket|recv|send", call)
    ]
    assert len(changes) > 1
    # pycocotools imports matplotlib, which keeps a list of fonts; git looks at a checkout.
    places = rf"{tmp_path}/(temporary|home/.cache|home/.config)|/dev/null|/dev/shm/|[^\"]*/\.git/"
    outputs = rf'{tmp_path}/work", [^)]*O_TMPFILE|({tmp_path}/work/)?out\b'  # a file without a name is a trial
    assert not [call for call in changes if not re.search(f'"({places}|{outputs})', call)]
