"""Networks of the transformers package, from a folder or from the hub."""

from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from no_time_to_train.errors import UserError, one_line
from no_time_to_train.networks.devices import to_device


def load_model(
    model: str, processor: str, weights: str, device: str | torch.device | None, extra: str = "proposers"
) -> tuple[Any, Any]:
    """A network in float32 and eval mode on a device, and what prepares images or texts for it.

    Args:
        model: The name of its class in transformers.
        processor: The name of its processor's class.
        weights: A folder that ``save_pretrained`` wrote, or a name on the hub; what was downloaded once is not again.
        extra: The extra of this package that installs what is needed, for a message.
    """
    transformers = import_module("transformers")
    try:
        classes = getattr(transformers, model), getattr(transformers, processor)
    except AttributeError as error:
        raise UserError(
            f"transformers {transformers.__version__} has no {model}: pip install -U 'no-time-to-train[{extra}]'"
        ) from error
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # it lists keys in hundreds of lines, which one below says
    try:
        network, info = classes[0].from_pretrained(weights, output_loading_info=True, use_safetensors=True)
        prepare = classes[1].from_pretrained(weights)
    except Exception as error:  # whatever the package runs into, from a broken file to a missing network
        reason = one_line(str(error).strip().partition("\n")[0].rstrip("."))
        help_ = (
            "is it the folder of this network, and complete?"
            if Path(weights).is_dir()
            else "see to the connection, log in with `hf auth login` if it asks for that, or give NAME=FOLDER"
        )
        raise UserError(f"{model} cannot be loaded from {weights}: {reason}; {help_}") from error
    finally:
        transformers.logging.set_verbosity(verbosity)
    if missing := info["missing_keys"]:
        raise UserError(
            f"{weights} holds another network than {model}: of the weights it lacks {min(missing)!r} and "
            f"{len(missing) - 1} more; give its own folder or name"
        )
    network = network.float().eval().requires_grad_(False)
    to_device(device, network)
    return network, prepare
