"""Where networks run."""

import torch
from torch import nn

from no_time_to_train.errors import UserError


def to_device(device: str | torch.device | None, *networks: nn.Module) -> None:
    """Move networks to a device.

    Args:
        device: Such as "cuda:1" or "cpu"; None takes the GPU if there is one.
        networks: The networks, which are moved in place.

    Raises:
        UserError: The device does not exist or cannot be used.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        for network in networks:
            network.to(device)
    except (RuntimeError, AssertionError) as error:  # torch raises either of them if it lacks the device
        raise UserError(f"device {device} cannot be used: {str(error).splitlines()[0]}") from error
