"""A wheel: the configurations and pages that messages and options name are in it, and work outside a clone."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from no_time_to_train.errors import UserError
from no_time_to_train.files import find_configuration
from tests.conftest import Patch

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", ["coco_10shot", "coco_fewshot_10shot_sam2l", "configs/coco_fewshot_10shot_sam2l.yaml"])
def test_a_configuration_is_found_by_words_of_its_name(name: str, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_configuration(name) == str(ROOT / "configs" / "coco_fewshot_10shot_sam2l.yaml")


def test_a_file_counts_more_than_a_name_of_which_two_are_refused(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="one of coco_fewshot_10shot_sam2l, coco_semantic_sam2l"):
        find_configuration("coco")
    Path("coco").touch()
    assert find_configuration("coco") == "coco"
    assert find_configuration("nowhere/custom_sam2l.yaml") == "nowhere/custom_sam2l.yaml"


def test_an_installed_package_has_its_configurations_and_its_pages(tmp_path: Path) -> None:
    source, installed = tmp_path / "source", tmp_path / "installed"
    for pattern in re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE):
        for path in ROOT.glob(pattern):  # what is enough for an image is enough for a wheel
            copy = source / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(path, copy) if path.is_dir() else shutil.copy(path, copy)
    build = "from setuptools.build_meta import build_wheel; build_wheel('.')"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = source.glob("*.whl")
    with ZipFile(wheel) as archive:
        archive.extractall(installed)
    assert (installed / "no_time_to_train_extras" / "app" / "templates" / "app.js").is_file()

    def run(*words: str) -> str:
        line = [sys.executable, "-m", "no_time_to_train", *words]
        environment = {**os.environ, "PYTHONPATH": str(installed)}
        ended = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
        return ended.stdout + ended.stderr

    assert "--model.test_mode must be one of" in run("test", "--config", "coco_10shot", "--model.test_mode", "x")
    pages = re.findall(r"\S*docs/\w+\.md", run("segment", "--help").replace("(", " "))
    assert pages
    assert all(Path(page).is_file() and Path(page).is_relative_to(installed) for page in pages)


@pytest.mark.parametrize("repository", ["owner/fork", None])
def test_links_of_the_readme_lead_to_the_repository_on_pypi_or_are_text_where_none_is_known(
    repository: str | None, tmp_path: Path
) -> None:
    for name in ("README.md", "LICENSE", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, tmp_path)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GITHUB_")}
    if repository:
        server = {"GITHUB_SERVER_URL": "https://git.example", "GITHUB_REF_NAME": "v9"}
        environment |= server | {"GITHUB_REPOSITORY": repository}
    build = "from setuptools.build_meta import prepare_metadata_for_build_wheel as prepare; prepare('.')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, env=environment, check=True, capture_output=True)
    (metadata,) = tmp_path.glob("*.dist-info/METADATA")
    text = metadata.read_text(encoding="utf-8")
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)]+)\)", text)
    assert ("", "https://arxiv.org/abs/2507.02798") in links
    assert all(link.startswith("https://") for _, link in links)
    ours = [(picture, link) for picture, link in links if link.startswith("https://git.example/owner/fork/")]
    for picture, link in ours:
        kind, tag, path = link.removeprefix("https://git.example/owner/fork/").split("/", 2)
        assert (kind, tag) == ("raw" if picture else "blob", "v9")
        assert (ROOT / path).exists()
    assert {bool(picture) for picture, _ in ours} == ({True, False} if repository else set())
    assert ("Project-URL: Repository, https://git.example/owner/fork" in text) == bool(repository)
