"""Parts of the method from outside the package: networks, scores, merging, protocols of one's own (docs/extending.md).

A part is called ``MODULE:ATTRIBUTE``, and that name may stand wherever the name of a built-in part may. It only runs
code where :func:`allow` has allowed the module, which the option ``--plugin`` does and a configuration cannot. In
Python, the function or class itself may be given. Nothing here imports torch.
"""

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from no_time_to_train.errors import UserError, suggest

#: In a type hint next to a ``Literal``: the value may be a part of one's own, too. A configuration only has its name.
if TYPE_CHECKING:
    OwnPart = str | Callable[..., Any]
else:
    OwnPart = str

#: The modules that may run, by name.
ALLOWED: dict[str, ModuleType] = {}

#: How a part is called. ``timm:NAME`` is an encoder of timm, and C:FILE.pt has a dot.
NAME = re.compile(r"(?!timm:)([^\W\d][\w.]*):([^\W\d]\w*)")


class Plugin(str):
    """The name of a part of one's own, ``MODULE:ATTRIBUTE``, as settings and records have it.

    Attributes:
        file: The file of its module; "" where there is none, as in a notebook.
        sha256: That of the file, or of the part's source.
    """

    part: Any
    file: str
    sha256: str

    def number(self, attribute: str) -> int:
        """A whole number of 1 or more that a network has as an attribute of its class or function."""
        value = getattr(self.part, attribute, None)
        if not isinstance(value, int) or value < 1:
            raise UserError(f"{self} needs the attribute {attribute}, a whole number (docs/extending.md)")
        return value


def allow(name: str) -> None:
    """Import a module, also from the current folder, and let configurations and options name its parts."""
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # at the end: no file there takes the place of an installed module
    try:
        ALLOWED[name] = import_module(name)
    except Exception as error:  # whatever the module runs into
        reason = " ".join(str(error).split())
        raise UserError(f"--plugin {name} cannot be imported: {type(error).__name__}: {reason}") from error


def is_plugin(value: object) -> bool:
    """Whether a value is a part of one's own, or has the form of the name of one."""
    if isinstance(value, str):
        return NAME.fullmatch(value) is not None
    return inspect.isroutine(value) or inspect.isclass(value)


def find_plugin(value: Any) -> Plugin:
    """The part that a name stands for, whose module must have been allowed; or the one that is given itself."""
    if isinstance(value, Plugin):
        return value
    if isinstance(value, str):
        module_name, _, attribute = value.partition(":")
        module = ALLOWED.get(module_name)
        if module is None:
            raise UserError(f"{value} is code, which only runs where --plugin {module_name} allows it")
        if not hasattr(module, attribute):
            raise UserError(f"{value}: the module has no {attribute!r}{suggest(attribute, vars(module))}")
        part, name = getattr(module, attribute), value
    else:
        part, name, module = value, f"{value.__module__}:{value.__qualname__}", sys.modules.get(value.__module__)
        if NAME.fullmatch(name) is None:
            raise UserError(f"{name} has no name in its module: give a function or class of a module")
    plugin = Plugin(name)
    plugin.part, plugin.file = part, getattr(module, "__file__", None) or ""
    plugin.sha256 = sha256(_source(part, plugin.file)).hexdigest()
    return plugin


def choose(table: Mapping[str, Any], name: Any) -> Any:
    """The part with a name in a table of the built-in ones, or the part of one's own."""
    return table[name] if name in table else find_plugin(name).part


def hashes(*values: object) -> dict[str, dict[str, str]]:
    """The SHA-256 of the parts of one's own among some values, for what results depend on; empty without any."""
    found = {str(plugin): plugin.sha256 for value in values if is_plugin(value) for plugin in [find_plugin(value)]}
    return {"plugins": found} if found else {}


def _source(part: Any, file: str) -> bytes:
    """What the part's results depend on, as far as it can be known."""
    if file:
        return Path(file).read_bytes()
    try:
        return inspect.getsource(part).encode()
    except (OSError, TypeError) as error:
        raise UserError(f"{part!r} has no source that a record could name: put it into a module") from error
