"""Networks of the transformers package, from a folder or from the hub."""

from typing import Any

import torch

from no_time_to_train.errors import UserError, one_line
from no_time_to_train.networks.devices import to_device


def load_model(model: str, processor: str, weights: str, device: str | torch.device | None) -> tuple[Any, Any]:
    """A network in float32 and eval mode on a device, and what prepares images for it.

    Args:
        model: The name of its class in transformers.
        processor: The name of its processor's class.
        weights: A folder that ``save_pretrained`` wrote, or a name on the hub; what was downloaded once is not again.
    """
    import transformers

    try:
        classes = getattr(transformers, model), getattr(transformers, processor)
    except AttributeError as error:
        raise UserError(
            f"transformers {transformers.__version__} has no {model}: pip install -U 'no-time-to-train[proposers]'"
        ) from error
    try:
        network, info = classes[0].from_pretrained(weights, output_loading_info=True, use_safetensors=True)
        prepare = classes[1].from_pretrained(weights)
    except Exception as error:  # whatever the package runs into, from a broken file to a missing network
        reason = one_line(str(error).strip().partition("\n")[0])
        raise UserError(
            f"{model} cannot be loaded from {weights}: {reason}; see to the connection, or download it another way "
            "and give NAME=FOLDER"
        ) from error
    if missing := info["missing_keys"]:
        raise UserError(f"{weights} holds no {model}: it lacks the key {min(missing)!r} and {len(missing) - 1} more")
    network = network.float().eval().requires_grad_(False)
    to_device(device, network)
    return network, prepare
