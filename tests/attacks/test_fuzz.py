"""Files that are broken at random are read or refused with a UserError of one line: no traceback and no hang.

The environment variable ``FUZZ_CASES`` sets the cases per test, and ``-s`` prints how many were answered and refused:
``FUZZ_CASES=20000 pytest -s tests/attacks/test_fuzz.py``.
"""

import copy
import faulthandler
import json
import os
import pickle
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonargparse import set_parsing_settings
from PIL import Image
from torch import nn

from no_time_to_train import MemoryBank, UserError
from no_time_to_train.benchmarks.prepare.archives import unpack
from no_time_to_train.data.class_splits import select_categories
from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.datasets import ReferenceDataset, TargetDataset
from no_time_to_train.data.images import read_rgb
from no_time_to_train.data.memory_files import load_memory, save_memory
from no_time_to_train.data.reference_sets import read_references, sample_references, validate_references
from no_time_to_train.data.rle import annotation_mask
from no_time_to_train.evaluation import evaluate
from no_time_to_train.lightning_module import NoTimeToTrain
from no_time_to_train.networks.checkpoints import load_strictly, read_checkpoint
from no_time_to_train.stage_cli import IMPORTABLE, StageParser
from tests.attacks.test_archives import ARCHIVES
from tests.attacks.test_cases import READERS, valid_content, write_case
from tests.attacks.test_checkpoints import WEIGHTS, saved_in_every_form
from tests.attacks.test_memories import valid
from tests.conftest import DATA

pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow's about broken files, and this package's
CASES = int(os.environ.get("FUZZ_CASES", "150"))
fuzz = settings(
    max_examples=CASES,
    deadline=20_000,  # milliseconds per case, enough on a busy machine
    derandomize=True,
    print_blob=False,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

#: Seconds that a case may take, on a busy machine too, before the process ends with a traceback.
LIMIT = 60


class Outcomes:
    """How the cases of a test ended, by what was done with the file: ``reading``, ``scoring``, ..."""

    def __init__(self) -> None:
        self.answered: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.messages: list[str] = []

    @contextmanager
    def of(self, action: str) -> Iterator[None]:
        """Count whether the block ends, or raises a UserError."""
        faulthandler.dump_traceback_later(LIMIT, exit=True)
        try:
            yield
        except UserError as error:
            self.refused[action] += 1
            self.messages.append(str(error))
        else:
            self.answered[action] += 1


@pytest.fixture
def outcomes() -> Iterator[Outcomes]:
    """The outcomes of a test. It fails if few cases were answered, none was refused, or a message has many lines."""
    counts = Outcomes()
    yield counts
    assert not [message for message in counts.messages if len(message.splitlines()) != 1]
    for action in counts.answered | counts.refused:
        answered, refused = counts.answered[action], counts.refused[action]
        print(f"{action}: {answered} answered, {refused} refused")
        assert answered > refused / 50, f"{action}: only {answered} cases were answered, {refused} refused"
        assert refused, f"{action}: none of {answered} cases was refused"


#: Values that replace others anywhere in a JSON file.
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.sampled_from([2**31, 2**63, -(2**40), 1e30, float("nan"), float("inf"), -0.0, 0.5]),
    st.text(max_size=5),
    st.lists(st.integers(-3, 300), max_size=7),
    st.dictionaries(st.sampled_from(["id", "size", "counts"]), st.integers(0, 9), max_size=2),
)


def places(content: Any) -> list[tuple[Any, Any]]:
    """The container and the key of every part of a JSON value."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else []
    return [place for key, value in items for place in ((content, key), *places(value))]


def broken(draw: st.DrawFn, content: Any) -> Any:
    """A copy of a JSON value with some of its parts removed, duplicated, replaced, or, if numbers, changed a little."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        container, key = draw(st.sampled_from(places(content) or [([None], 0)]))
        change = draw(st.sampled_from(["replace", "remove", "duplicate", *["move"] * 5]))
        if change == "move":
            if type(container[key]) in (int, float):
                container[key] += draw(st.sampled_from([-1, 0.25, 1]))
        elif change == "replace":
            container[key] = draw(VALUES)
        elif change == "remove":
            del container[key]
        elif isinstance(container, list):
            container.append(copy.deepcopy(container[key]))
    return content


def corrupted(draw: st.DrawFn, content: bytes) -> bytes:
    """The bytes, perhaps truncated, with a few of them changed."""
    data = bytearray(content[: draw(st.integers(0, len(content))) if draw(st.integers(0, 3)) == 3 else len(content)])
    for _ in range(draw(st.integers(0, 8))):
        if data:
            data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


def retyped(draw: st.DrawFn, content: bytes) -> bytes:
    """The bytes of a text, one in four of them corrupted, otherwise with a few other characters, mostly digits."""
    if draw(st.integers(0, 3)) == 0:
        return corrupted(draw, content)
    data = bytearray(content)
    digits = [place for place, character in enumerate(data) if 48 <= character < 58] or [0]
    for _ in range(draw(st.integers(1, 2))):
        if draw(st.integers(0, 2)):
            data[draw(st.sampled_from(digits))] = draw(st.sampled_from(b"0123456789"))
        else:
            data[draw(st.integers(0, len(data) - 1))] = draw(st.sampled_from(b".- <>[]\n"))
    return bytes(data)


@st.composite
def json_files(draw: st.DrawFn, content: Any) -> bytes:
    """A JSON file with broken content; one in ten is also corrupted as a file."""
    whole = json.dumps(broken(draw, content)).encode()
    return corrupted(draw, whole) if draw(st.integers(0, 9)) == 0 else whole


ANNOTATIONS = json.loads((DATA / "references.json").read_text())
REFERENCES = {str(key): shots for key, shots in read_references(DATA / "references.pkl").items()}


@fuzz
@given(content=json_files(ANNOTATIONS))
def test_annotation_files(content: bytes, tmp_path: Path, outcomes: Outcomes) -> None:
    path = tmp_path / "annotations.json"
    path.write_bytes(content)
    with outcomes.of("sampling and cropping references"):
        coco = read_coco(path)
        categories = select_categories(coco, path)
        references = sample_references(coco, categories, 1, seed=0)
        dataset = ReferenceDataset(coco, str(DATA / "images"), categories, references, 28, 0.2)
        _ = [dataset[index] for index in range(len(dataset))]
    with outcomes.of("loading targets"):
        targets = TargetDataset(read_coco(path), str(DATA / "images"), 16)
        _ = targets[len(targets) - 1] if len(targets) else None
    with outcomes.of("decoding masks"):
        coco = read_coco(path)
        for annotation in coco.anns.values():
            image = coco.imgs[annotation["image_id"]]
            annotation_mask(annotation, image.get("height", 4), image.get("width", 4))
    with outcomes.of("scoring"):
        coco = read_coco(path)
        evaluate(coco, [], select_categories(coco, path))


@fuzz
@given(content=st.one_of(json_files(REFERENCES), st.composite(corrupted)(pickle.dumps(REFERENCES))))
def test_reference_sets(content: bytes, tmp_path: Path, outcomes: Outcomes) -> None:
    path = tmp_path / ("references.json" if content[:1] in b"{[" else "references.pkl")
    path.write_bytes(content)
    coco = read_coco(DATA / "references.json")
    with outcomes.of("reading"):
        validate_references(read_references(path), coco, path, select_categories(coco, "references.json"), None)


#: The forms of annotations, and how their files are changed.
FORMS = [
    *((name, json_files(valid_content(name))) for name in ("coco", "results", "labelme")),
    *((name, st.composite(retyped)(valid_content(name).encode())) for name in ("voc", "yolo", "yolo_names")),
]


@settings(fuzz, max_examples=2 * CASES)
@given(content=st.one_of([st.tuples(st.just(name), files) for name, files in FORMS]))
def test_annotations(content: tuple[str, bytes], tmp_path: Path, outcomes: Outcomes) -> None:
    name, file = content
    path = write_case(name, file, tmp_path / name)
    with outcomes.of(name):
        READERS[name].read(path)


def bytes_of(memory: Any) -> bytes:
    file = BytesIO()
    torch.save(memory, file)
    return file.getvalue()


MEMORY = valid()


@fuzz
@given(content=st.one_of(st.composite(broken)(MEMORY).map(bytes_of), st.composite(corrupted)(bytes_of(MEMORY))))
def test_memories(content: bytes, tmp_path: Path, outcomes: Outcomes) -> None:
    """Those that are read can be written, joined and read again."""
    path = tmp_path / "m.memory"
    path.write_bytes(content)
    with outcomes.of("reading"):
        bank = load_memory(path)
        if len(bank) and set(bank.class_index.tolist()) == set(range(len(bank.categories))):
            bank = MemoryBank.join([bank, bank])
        save_memory(bank, path)
        assert repr(load_memory(path)) == repr(bank)


@pytest.fixture(scope="module")
def parser() -> StageParser:
    """A parser of the configuration of a stage."""
    set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=IMPORTABLE)
    parser = StageParser(exit_on_error=True)
    parser.add_subclass_arguments(NoTimeToTrain, "model")
    parser.add_argument("--trainer", type=dict)
    return parser


@settings(fuzz, max_examples=CASES // 3)  # a case takes a tenth of a second
@given(content=st.composite(broken)(yaml.safe_load((DATA.parents[1] / "configs/custom_sam2l.yaml").read_text())))
def test_configurations(content: Any, parser: StageParser, outcomes: Outcomes) -> None:
    with outcomes.of("parsing"):
        parser.parse_string(yaml.safe_dump(content))


def images() -> list[bytes]:
    """Small images in common formats and modes."""
    rng = np.random.default_rng(0)
    pixels = Image.fromarray(rng.integers(0, 255, (12, 10, 4), dtype=np.uint8), "RGBA")
    kinds = [("RGB", "jpeg"), ("L", "png"), ("RGBA", "png"), ("P", "gif"), ("I;16", "tiff"), ("RGB", "webp")]
    files = [BytesIO() for _ in kinds]
    for file, (mode, name) in zip(files, kinds, strict=True):
        (pixels.convert("L") if mode == "I;16" else pixels).convert(mode).save(file, name)
    return [file.getvalue() for file in files]


@fuzz
@given(content=st.sampled_from(images()).flatmap(st.composite(corrupted)))
def test_images(content: bytes, tmp_path: Path, outcomes: Outcomes) -> None:
    path = tmp_path / "image"
    path.write_bytes(content)
    with outcomes.of("decoding"):
        assert read_rgb(path).ndim == 3


@settings(fuzz, max_examples=4 * CASES)
@given(
    content=st.sampled_from([*saved_in_every_form(WEIGHTS), pickle.dumps(WEIGHTS, 2)]).flatmap(st.composite(corrupted))
)
def test_checkpoints(content: bytes, tmp_path: Path, outcomes: Outcomes) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with outcomes.of("loading"):
        load_strictly(nn.Linear(2, 2), read_checkpoint(path), path)


@settings(fuzz, max_examples=3 * CASES)
@given(content=st.sampled_from(ARCHIVES).flatmap(st.composite(corrupted)))
def test_archives(content: bytes, tmp_path: Path, outcomes: Outcomes) -> None:
    """Nothing is written elsewhere."""
    path, before = tmp_path / "archive", set(tmp_path.iterdir())
    path.write_bytes(content)
    with outcomes.of("unpacking"):
        unpack(path, tmp_path / "out", lambda name: True)
    assert set(tmp_path.iterdir()) - before <= {path, tmp_path / "out"}
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
