"""YAML of plain data, read in time and memory that go with its size."""

import re
from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any

import yaml

from no_time_to_train.errors import UserError
from no_time_to_train.files import read_text

#: How deeply a YAML file may be nested.
DEEPEST = 100

#: YAML's safe loader and dumper: those of libyaml, where PyYAML has them, are ten times faster.
LOADER, DUMPER = (getattr(yaml, f"CSafe{kind}", getattr(yaml, f"Safe{kind}")) for kind in ("Loader", "Dumper"))

#: What YAML takes for an integer, among other numbers, and how many characters it may have.
INTEGER = re.compile(r"[-+]?[0-9][0-9a-fA-FxXbo_:]*")
LONGEST_INTEGER = 100


def check_yaml(text: str) -> None:
    """Refuse YAML with aliases, a few of which stand for billions of values, long numbers, a key twice, or too deep.

    Raises:
        yaml.YAMLError: It has an alias, is nested too deeply, or is not valid.
    """
    depth = 0
    for event in yaml.parse(text, LOADER):
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(f"it has an alias, *{event.anchor}: write the value itself")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise yaml.YAMLError(f"it is nested more than {DEEPEST} times")
        if (
            isinstance(event, yaml.ScalarEvent)
            and len(event.value) > LONGEST_INTEGER
            and INTEGER.fullmatch(event.value)
        ):
            raise UserError(f"the number {short_repr(event.value)} has more than {LONGEST_INTEGER} characters")
    nodes: list[Any] = [yaml.compose(text, LOADER)]
    for node in nodes:
        is_mapping = isinstance(node, yaml.MappingNode)
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)) if is_mapping else {}
        if twice := next((key for key, count in keys.items() if count > 1), None):
            raise yaml.YAMLError(f"it has the key {short_repr(twice)} twice in one place: leave one of them out")
        nodes += chain(*node.value) if is_mapping else node.value if isinstance(node, yaml.SequenceNode) else []


def parse_yaml(text: str, load: Callable[[str], Any] | None = None) -> Any:
    """The plain data of a text in YAML, by a function that loads it, after :func:`check_yaml`."""
    check_yaml(text)
    try:
        return load(text) if load else yaml.load(text, LOADER)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:  # of the constructors
        raise yaml.YAMLError(f"a value is not of its type: {error}") from error


def read_yaml(path: str | Path, as_text: bool = False) -> Any:
    """Read a YAML file of plain data, without aliases; ``as_text`` leaves all values the texts that they are."""
    text = read_text(path)
    try:
        content = parse_yaml(text)
        return yaml.load(text, yaml.BaseLoader) if as_text else content
    except (UserError, yaml.YAMLError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
