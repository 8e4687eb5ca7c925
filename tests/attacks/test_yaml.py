"""Configurations that grow when they are read."""

import re
from pathlib import Path

import pytest

from no_time_to_train.cli import main

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
    option: str, content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "attack.yaml"
    path.write_text(content)
    with pytest.raises(SystemExit) as exit_:
        main(["test", "--config", str(CONFIG), option, str(path)])
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert str(path) in error
    assert re.search(message, error)
