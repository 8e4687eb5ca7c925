"""The method from Python."""

import no_time_to_train.light_imports  # noqa: F401  # before torchvision and timm are imported as usual
