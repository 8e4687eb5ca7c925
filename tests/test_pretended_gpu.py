"""Every face on a pretended GPU gives the CPU's instances, and the host waits for the device a few times an image.

``timing/pretended_gpu.py`` counts launches and waits. The counts are exact, whatever else the machine does.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent

#: Waits and launches for an image of the nano networks: at most these.
WAITS = {"bfloat16": 6, "paper": 6, "best": 6, "guided": 8, "diffusion": 6, "sources": 9, "fsod_vfm": 7, "tiles": 45}
#: The five squares of the tiles are in the encoders at once; one after the other they take 2,962 launches.
LAUNCHES = {"paper": 570, "sources": 610, "fsod_vfm": 570, "bfloat16": 705, "tiles": 2310}


@pytest.fixture(scope="module")
def ran() -> dict[str, Any]:
    """What the faces found on both devices, and the counts."""
    environment = {**os.environ, "PYTORCH_JIT": "0", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.on_pretended_gpu"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("face", WAITS)
def test_a_gpu_finds_what_the_cpu_finds(ran: dict[str, Any], face: str) -> None:
    spread = 0.02 if face == "bfloat16" else 1e-5
    for cpu, gpu in zip(ran["cpu"][face], ran["gpu"][face], strict=True):
        assert len(cpu) == len(gpu) > 0
        for ours, theirs in zip(cpu, gpu, strict=True):
            assert ours["score"] == pytest.approx(theirs["score"], abs=spread)
            if face != "bfloat16":
                assert ours["segmentation"] == theirs["segmentation"]
                assert ours["bbox"] == pytest.approx(theirs["bbox"], abs=1e-3)
                assert ours.get("source") == theirs.get("source")


def test_lightnings_stages_and_the_cache_on_a_gpu_give_what_they_give_on_a_cpu(ran: dict[str, Any]) -> None:
    computed, cached = ran["gpu"]["stages"]
    assert computed == cached == ran["cpu"]["stages"][0]
    assert len(computed) > 0
    assert ran["counts"]["stages"]["launches"] > 100  # it was the GPU


def test_nothing_lands_on_another_gpu_than_the_one_that_was_asked_for(ran: dict[str, Any]) -> None:
    assert ran["tensors on"].keys() == {"cuda:1"}


@pytest.mark.parametrize("face", WAITS)
def test_the_host_waits_a_few_times_an_image_whatever_the_number_of_classes(ran: dict[str, Any], face: str) -> None:
    counts = ran["counts"][face]
    assert counts["waits"] <= WAITS[face], counts["where"]
    assert counts["launches"] <= LAUNCHES.get(face, 10_000)


def test_an_image_in_bfloat16_casts_no_weights_but_three_biases_in_the_decoder(ran: dict[str, Any]) -> None:
    assert ran["counts"]["bfloat16"]["by_operation"]["_to_copy of a weight"] == 3
