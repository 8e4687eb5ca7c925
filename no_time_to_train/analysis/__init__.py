"""What uses the method to judge references, thresholds and missed objects."""

import no_time_to_train.light_imports  # noqa: F401  # before torchvision and timm are imported as usual
