"""A pretended GPU: tensors that say they are on "cuda" and compute on the CPU.

It shows, on a machine without a GPU, what only a GPU shows otherwise: an operation on tensors of two devices, a call
that only CPU tensors have, a branch for CUDA that was never run. It also counts what a GPU's host does: kernels that it
launches, and places where it waits for the device. The counts do not depend on how busy the machine is.

    PYTORCH_JIT=0 python your_script.py  # torchvision's scripted transforms cannot see through the stand-in

    torch.inference_mode = torch.no_grad       # before no_time_to_train is imported: see "Limits"
    with pretend_cuda() as device:
        model.to("cuda:1")
        device.reset()
        model(x.to("cuda:1"))
    print(device.launches, device.waits, device.wait_at.most_common(5), device.tensors_on)

There are two devices, of which the first is the current one, as on a machine with two GPUs: what lands there, although
another device was asked for, is counted and cannot meet what is on the other one. Lightning's Trainer runs on it as
well, with ``--trainer.accelerator gpu --trainer.devices 1`` in the same process.

How it works: a tensor subclass whose device is cuda:0 or cuda:1 holds a CPU tensor; every operation on it is checked,
counted, and done on the CPU tensors. The same guard that torch's own fake tensors use stands in for the CUDA driver.

Limits: inference tensors cannot be wrapped (hence ``no_grad``). Loader processes see no pretended device. A launch is
counted per ATen operation, and attention is one: some are one kernel on a GPU, some are a few, some none.
Times mean nothing.
"""

import collections
import contextlib
import threading
import traceback
import unittest.mock
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

#: Operations that launch nothing: they change how memory is looked at.
VIEWS = {
    "view", "_unsafe_view", "expand", "permute", "transpose", "t", "slice", "select", "unsqueeze", "squeeze", "detach",
    "alias", "as_strided", "unbind", "split", "split_with_sizes", "unsafe_split", "unfold", "lift_fresh", "diagonal",
    "_reshape_alias", "view_as_real", "chunk", "narrow", "reshape",
}  # fmt: skip
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
#: Operations that may take tensors of two devices.
MIXING = INDEXING | {"copy_", "_to_copy", "set_", "result_type"}
#: Operations whose result the host waits for.
WAITING = {
    "_local_scalar_dense", "nonzero", "masked_select", "equal", "unique_dim", "_unique2", "unique_consecutive", "nms",
}  # fmt: skip
#: Operations that change a tensor's own shape in place.
RESHAPING = {"squeeze_", "unsqueeze_", "t_", "transpose_", "as_strided_", "swapaxes_", "swapdims_"}


class Device:
    """What the pretended devices did since :meth:`reset`, and how many tensors were made on each in all."""

    def __init__(self) -> None:
        self.current = 0
        self.tensors_on: collections.Counter[str] = collections.Counter()
        self.reset()

    def reset(self) -> None:
        self.launches = self.waits = self.bytes_to_host = 0
        self.by_operation: collections.Counter[str] = collections.Counter()
        self.wait_at: collections.Counter[str] = collections.Counter()

    def launch(self, name: str) -> None:
        self.launches += 1
        self.by_operation[name] += 1

    def wait(self, name: str) -> None:
        self.waits += 1
        frames = (f for f in reversed(traceback.extract_stack()) if "no_time_to_train/" in f.filename)
        if frame := next(frames, None):
            file = frame.filename.rpartition("no_time_to_train/")[2]
            self.wait_at[f"{file}:{frame.lineno} {frame.line} ({name})"] += 1


DEVICE = Device()
torch._C._ensureCUDADeviceGuardSet()  # a guard that does nothing, where there is no driver


class OnDevice(torch.Tensor):
    """A tensor on the pretended device, and the CPU tensor ``raw`` that it stands for."""

    raw: torch.Tensor

    @staticmethod
    def __new__(cls, raw: torch.Tensor, device: torch.device) -> "OnDevice":
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            raw.size(),
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            layout=raw.layout,
            device=device,
        )
        made.raw = raw
        DEVICE.tensors_on[str(device)] += 1
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch's own is no method: it takes no class
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return run(func, args, kwargs or {})

    def __repr__(self) -> str:  # type: ignore[override]  # torch's has an argument for torch's own subclasses
        return f"OnDevice({self.raw}, {self.device})"

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy it first.")

    __array__ = numpy

    def tolist(self) -> Any:
        DEVICE.wait("tolist")
        return self.raw.tolist()

    def __getitem__(self, index: Any) -> Any:
        def on_device(part: Any) -> Any:
            return torch.tensor(part).to(self.device) if isinstance(part, list) else part

        return super().__getitem__(tuple(map(on_device, index)) if isinstance(index, tuple) else on_device(index))


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Check, count, and do one ATen operation."""
    name = func._schema.name.rpartition("::")[2]
    flat, _ = tree_flatten((args, kwargs))
    tensors = [value for value in flat if isinstance(value, torch.Tensor)]
    ours = [value for value in tensors if isinstance(value, OnDevice)]
    others = [value for value in tensors if not isinstance(value, OnDevice) and value.dim() > 0]
    target, place = None, ours[0].device if ours else None
    if kwargs.get("device") is not None:
        place = torch.device(kwargs["device"])
        target = place.type
        place = torch.device("cuda", DEVICE.current) if target == "cuda" and place.index is None else place
    if name in ("_pin_memory", "pin_memory"):
        return args[0]
    if name == "is_pinned":
        return False
    if name == "_fused_sdp_choice":
        return 0  # attention by its definition, which the CPU has
    found = {str(value.device) for value in [*ours, *others] if value.dim() > 0}
    if ours and len(found) > 1 and name not in MIXING:
        raise RuntimeError(f"Expected all tensors to be on the same device, but found {found}! ({func})")
    if name in INDEXING and others and ours and not isinstance(args[0], OnDevice):
        raise RuntimeError(f"indices should be on cpu or on the same device as the indexed tensor (cpu) ({func})")
    if (name == "copy_" and isinstance(args[1], OnDevice) and not isinstance(args[0], OnDevice)) or (
        name == "_to_copy" and ours and target == "cpu"
    ):
        DEVICE.wait("to the host")
        DEVICE.bytes_to_host += (args[1] if name == "copy_" else args[0]).nbytes
    elif name in INDEXING and ours and any(isinstance(i, torch.Tensor) and i.dtype == torch.bool for i in args[1]):
        DEVICE.wait("index by bool")
    elif name in WAITING and ours:
        DEVICE.wait(name)
    if ours and name not in VIEWS:
        DEVICE.launch(f"{name} of a weight" if name == "_to_copy" and getattr(args[0], "_is_param", False) else name)

    raw_args, raw_kwargs = tree_map(lambda value: value.raw if isinstance(value, OnDevice) else value, (args, kwargs))
    if target is not None:
        raw_kwargs = {**raw_kwargs, "device": torch.device("cpu")}
    if "pin_memory" in raw_kwargs:
        raw_kwargs = {**raw_kwargs, "pin_memory": False}
    result = func(*raw_args, **raw_kwargs)
    if name in RESHAPING:
        with no_dispatch():
            func(*args, **kwargs)
        return args[0]
    inputs = {id(value.raw): value for value in ours}

    def wrapped(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or isinstance(value, OnDevice):
            return value
        if id(value) in inputs:
            return inputs[id(value)]
        return value if place is None or place.type == "cpu" else OnDevice(value, place)

    return result if name in ("_local_scalar_dense", "equal") else tree_map(wrapped, result)


class Mode(TorchDispatchMode):
    """Catches what makes tensors on the device, or moves them there."""

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)  # as super() it would be a call without types

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        flat, _ = tree_flatten((args, kwargs))
        to_device = kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cuda"
        if to_device or any(isinstance(value, OnDevice) for value in flat):
            return run(func, args, kwargs)
        return func(*args, **kwargs)


def _apply(module: torch.nn.Module, function: Any, recurse: bool = True) -> torch.nn.Module:
    """``Module._apply`` that replaces parameters, because a wrapper cannot be the data of a CPU parameter."""
    for child in module.children():
        child._apply(function)
    for tensors in (module._parameters, module._buffers):
        for name, tensor in tensors.items():
            if tensor is not None:
                with torch.no_grad():
                    moved = function(tensor)
                keep = isinstance(tensor, torch.nn.Parameter) and not isinstance(moved, OnDevice)
                tensors[name] = torch.nn.Parameter(moved, requires_grad=False) if keep else moved
                if isinstance(moved, OnDevice):
                    moved._is_param = isinstance(tensor, torch.nn.Parameter)
    return module


@contextlib.contextmanager
def pretend_cuda() -> Iterator[Device]:
    """Pretend that there are two CUDA devices, in all threads of this process that start inside."""
    properties = unittest.mock.Mock(total_memory=80 << 30, major=9, minor=0, multi_processor_count=132)
    properties.name = "pretended"
    answers: dict[str, Any] = {
        "_lazy_init": lambda: None,
        "init": lambda: None,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 2,
        "current_device": lambda: DEVICE.current,
        "set_device": lambda device: setattr(DEVICE, "current", torch.device(device).index or 0),
        "synchronize": lambda *_: DEVICE.wait("synchronize"),
        "empty_cache": lambda: None,
        "mem_get_info": lambda *_: (70 << 30, 80 << 30),
        "get_device_properties": lambda *_: properties,
        "get_device_capability": lambda *_: (9, 0),
        "get_device_name": lambda *_: "pretended",
        "is_bf16_supported": lambda *_, **__: True,
        "reset_peak_memory_stats": lambda *_: None,
        "max_memory_allocated": lambda *_: 0,
        "memory_allocated": lambda *_: 0,
    }
    patch = unittest.mock.patch.object
    with contextlib.ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(patch(torch.cuda, name, answer))
        for name in ("tensor", "as_tensor"):
            stack.enter_context(patch(torch, name, _on_cpu_first(getattr(torch, name))))
        accelerator = {"get_memory_info": lambda *_: (70 << 30, 80 << 30), "empty_cache": lambda: None}
        for name, answer in accelerator.items():
            stack.enter_context(patch(torch.accelerator, name, answer))
        functional, attention = torch.nn.functional, "scaled_dot_product_attention"
        stack.enter_context(patch(functional, attention, _one_launch(getattr(functional, attention))))
        stack.enter_context(patch(torch.Tensor, "new_tensor", _new_tensor))
        stack.enter_context(patch(torch.nn.Module, "_apply", _apply))
        real_run = threading.Thread.run

        def run_in_mode(thread: threading.Thread) -> None:
            with Mode():
                real_run(thread)

        stack.enter_context(patch(threading.Thread, "run", run_in_mode))
        stack.enter_context(Mode())
        DEVICE.reset()
        yield DEVICE


def _on_cpu_first(make: Any) -> Any:
    """``torch.tensor`` and the like make the tensor on the CPU and then move it: inside, they would ask the driver."""

    def made(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> Any:
        tensor = data if isinstance(data, OnDevice) else make(data, *args, **kwargs)
        return tensor if device is None else tensor.to(device)

    return made


def _one_launch(attend: Any) -> Any:
    """Attention is one kernel on a GPU; on a wrapper, torch would do it by its definition."""

    def attended(*tensors: Any, **kwargs: Any) -> Any:
        if not isinstance(tensors[0], OnDevice):
            return attend(*tensors, **kwargs)
        DEVICE.launch("scaled_dot_product_attention")
        return OnDevice(attend(*(tensor.raw for tensor in tensors), **kwargs), tensors[0].device)

    return attended


def _new_tensor(self: torch.Tensor, data: Any, *, dtype: Any = None, device: Any = None, **_: Any) -> torch.Tensor:
    return torch.tensor(data, dtype=dtype or self.dtype).to(device or self.device)
