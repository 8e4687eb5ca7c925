"""Print docs/configuration.md: the keys of a configuration, from the dataclasses and docstrings of the package.

python scripts/config_table.py           # print the page
python scripts/config_table.py --write   # write it
python scripts/config_table.py --check   # fail if the page in docs/ is another one
"""

import argparse
import ast
import inspect
import json
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from docstring_parser import Docstring, DocstringStyle
from docstring_parser import parse as parse_docstring

from no_time_to_train import config
from no_time_to_train.ranges import range_of

ROOT = Path(__file__).parents[1]
PAGE = Path("docs", "configuration.md")  # in ROOT

#: The LightningModule is parsed and not imported, because importing it takes seconds.
MODULE, MODULE_CLASS = ROOT / "no_time_to_train" / "lightning_module.py", "NoTimeToTrain"

INTRODUCTION = """\
<!-- Written by scripts/config_table.py from docstrings: change those, and run it with --write. -->

# Configuration

The keys of a configuration of the three stages (`no-time-to-train test`), which stand under `model` and `init_args` in
a YAML file. The defaults are the paper's. A key that does not exist is an error, and so is a number outside its range.

```yaml
model:
  class_path: no_time_to_train.lightning_module.NoTimeToTrain
  init_args:
    test_mode: test
    model_cfg:
      sam2_infer_cfgs:
        points_per_side: 16
```

On the command line, the same key is `--model.init_args.model_cfg.sam2_infer_cfgs.points_per_side 16`, with or without
`init_args.`, and overrides the file. `--print_config` prints the whole configuration and exits.
"""


@dataclass
class Row:
    """A row of the table.

    Attributes:
        parents: The keys that the key stands under; several where data sets have the same key.
        name: The last part of the key.
        default: In Markdown.
        allowed: The range of a number, in words.
        description: In Markdown.
    """

    parents: list[str]
    name: str
    default: str
    allowed: str
    description: str

    def __str__(self) -> str:
        """The row in Markdown."""
        key = ".".join(filter(None, [_braces(self.parents), self.name]))
        default = f"{self.default} ({self.allowed})" if self.default and self.allowed else self.default or self.allowed
        return f"| `{key}` | {default} | {self.description} |"


def page() -> str:
    """The whole page in Markdown."""
    groups: dict[str, list[Row]] = {}
    module, arguments = _module_arguments()
    for name, annotation, default in arguments:
        nested = _dataclass_in(annotation)
        for title, row in _rows(nested, name) if nested else [("The stage", _row("", name, default, None, module))]:
            _add(groups.setdefault(title, []), row)
    tables = [
        "\n".join([f"## {title}", "", "| key | default (range) | meaning |", "| --- | --- | --- |", *map(str, rows)])
        for title, rows in groups.items()
    ]
    return "\n".join([INTRODUCTION, "\n\n".join(tables), ""])


def _module_arguments() -> tuple[Docstring, list[tuple[str, ast.expr | None, Any]]]:
    """The docstring of the LightningModule, and name, type and default of each of its arguments."""
    tree = ast.parse(MODULE.read_text(encoding="utf-8"))
    (module,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == MODULE_CLASS)
    (init,) = (node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    arguments = init.args.args[1:]
    defaults = [ast.literal_eval(value) for value in init.args.defaults]
    padded = [MISSING] * (len(arguments) - len(defaults)) + defaults
    found = [(one.arg, one.annotation, default) for one, default in zip(arguments, padded, strict=True)]
    return _parsed(ast.get_docstring(module)), found


def _dataclass_in(annotation: ast.expr | None) -> type | None:
    """The dataclass of the configuration that a type names, or None."""
    names = [node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)] if annotation else []
    kinds = [getattr(config, name, None) for name in names]
    return next((kind for kind in kinds if isinstance(kind, type) and is_dataclass(kind)), None)


def _rows(kind: type, parent: str) -> Iterator[tuple[str, Row]]:
    """The rows of a dataclass and of those inside it, each with the title of its table."""
    hints = get_type_hints(kind, include_extras=True)
    nested = [entry.name for entry in fields(kind) if is_dataclass(hints[entry.name])]
    for entry in fields(kind):
        if entry.name not in nested:
            owner = next(base for base in kind.__mro__ if entry.name in getattr(base, "__annotations__", {}))
            documentation = _parsed(inspect.getdoc(owner))
            title = (documentation.short_description or "").removesuffix(".")
            row = _row(parent, entry.name, entry.default, hints[entry.name], documentation)
            row.name = config.PUBLISHED_NAMES.get(row.name, row.name)
            yield title, row
    for name in nested:
        yield from _rows(hints[name], f"{parent}.{name}")


def _row(parent: str, name: str, default: Any, hint: Any, documentation: Docstring) -> Row:
    """The row of one key. The part of its description after "Default:" goes to the column of the defaults."""
    descriptions = {entry.arg_name: " ".join((entry.description or "").split()) for entry in documentation.params}
    if not descriptions.get(name):
        raise SystemExit(f"error: {f'{parent}.' if parent else ''}{name} has no description in its docstring")
    description, _, stated = descriptions[name].replace("``", "`").partition("Default: ")
    if stated:
        value = stated.removesuffix(".")
    elif default is MISSING:
        value = "required"
    else:
        value = "" if default in (None, "") else f"`{default if isinstance(default, str) else json.dumps(default)}`"
    declared = range_of(hint)
    return Row([parent], name, value, str(declared[1]) if declared else "", description.strip())


def _add(rows: list[Row], row: Row) -> None:
    """Add a row, or its parent to the row that has the same key under another parent."""
    for known in rows:
        if known.name == row.name:
            known.parents += row.parents
            return
    rows.append(row)


def _braces(parents: list[str]) -> str:
    """Keys that differ in their last part as one, such as ``dataset_cfgs.{fill_memory,test}``."""
    if len(parents) == 1:
        return parents[0]
    (common,) = {parent.rpartition(".")[0] for parent in parents}
    return f"{common}.{{{','.join(parent.rpartition('.')[2] for parent in parents)}}}"


def _parsed(docstring: str | None) -> Docstring:
    return parse_docstring(docstring or "", DocstringStyle.GOOGLE)


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--write", action="store_true", help=f"Write {PAGE}.")
    action.add_argument("--check", action="store_true", help="Fail if that page differs from what would be written.")
    options = parser.parse_args(argv)
    if options.write:
        (ROOT / PAGE).write_text(page(), encoding="utf-8")
    elif not options.check:
        print(page(), end="")
    elif not (ROOT / PAGE).exists() or (ROOT / PAGE).read_text(encoding="utf-8") != page():
        raise SystemExit(f"error: {PAGE} is not up to date: run python scripts/config_table.py --write")


if __name__ == "__main__":
    main()
