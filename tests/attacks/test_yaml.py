"""Configurations that grow when they are read."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

CONFIG = Path(__file__).parents[2] / "configs" / "custom_sam2l.yaml"

ATTACKS = {
    "a billion laughs": (
        "a: &a [ha, ha, ha, ha, ha, ha, ha, ha, ha]\n"
        + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
        r"it has an alias, \*a",
    ),
    "merged keys": ("a: &a {x: 1}\ntrainer:\n  <<: *a\n", r"it has an alias, \*a"),
    "nested 10,000 times": ("x: " + "[" * 10_000 + "]" * 10_000, "it is nested more than 100 times"),
    "a tag of Python": ("x: !!python/name:os.system", "python/name"),
}


@pytest.mark.parametrize("option", ["--config", "--trainer", "--model"])
@pytest.mark.parametrize(("content", "message"), ATTACKS.values(), ids=ATTACKS)
def test_a_configuration_that_grows_is_refused_wherever_it_is_named(
    option: str, content: str, message: str, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    path = tmp_path / "attack.yaml"
    path.write_text(content)
    error = refusal("test", "--config", CONFIG, option, path)
    assert str(path) in error
    assert re.search(message, error)
