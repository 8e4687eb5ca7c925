"""torchvision, timm and Lightning, imported without ``torch._dynamo``, which takes longer than torch itself.

``torchvision.ops.roi_align`` imports it for a function that says whether something can be compiled, timm for the
decorators of a network for images of any shape, and Lightning for the class of compiled modules. No function of these
is called here, and each imports it when it is called.
"""

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from importlib import import_module
from types import ModuleType
from typing import Any

import torch

DYNAMO = "torch._dynamo"


def is_compile_supported(device_type: Any) -> bool:
    """``torch._dynamo.utils.is_compile_supported``."""
    from torch._dynamo.utils import is_compile_supported

    return bool(is_compile_supported(device_type))


def disable(function: Callable[..., Any], *arguments: Any, **options: Any) -> Callable[..., Any]:
    """``torch.compiler.disable``."""

    @wraps(function)
    def disabled(*args: Any, **kwargs: Any) -> Any:
        return torch.compiler.disable(function, *arguments, **options)(*args, **kwargs)

    return disabled


class Compiled(type):
    """The type of ``OptimizedModule``: whether a module was compiled, which it is only once all is imported."""

    def __instancecheck__(cls, module: object) -> bool:
        dynamo = sys.modules.get(DYNAMO)
        return dynamo is not None and isinstance(module, dynamo.OptimizedModule)


class OptimizedModule(metaclass=Compiled):
    """``torch._dynamo.OptimizedModule``, for ``isinstance``."""


def import_light(*names: str) -> None:
    """Import packages, with these functions and this class in the place of ``torch._dynamo``."""
    if sys.modules.keys() & {DYNAMO, *names}:
        return
    dynamo, utils = ModuleType(DYNAMO), ModuleType(f"{DYNAMO}.utils")
    vars(dynamo).update(disable=disable, utils=utils, OptimizedModule=OptimizedModule)
    vars(utils).update(is_compile_supported=is_compile_supported)
    stand_ins = {one.__name__: one for one in (dynamo, utils)}
    sys.modules.update(stand_ins)
    try:
        # A version of theirs that needs more is imported as usual, by the next import.
        with suppress(ImportError, AttributeError):
            for name in names:
                import_module(name)
    finally:
        for name in stand_ins:
            del sys.modules[name]


import_light("torchvision", "timm")
