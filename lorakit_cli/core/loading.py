"""How a base is to be loaded: where, in which precision, and with the adapters fused or attached."""

import re
from dataclasses import dataclass

from lorakit_cli.errors import OptionError

_DEVICE = re.compile(r"auto|cpu|mps|(cuda|xpu)(:\d{1,3})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Loading:
    """How a base is loaded, the same for all pictures of one run; `auto` is chosen when the device is known."""

    device: str = "auto"
    dtype: str = "auto"
    attach: bool = False

    def check(self) -> None:
        """Raise OptionError for what no machine has."""
        if not _DEVICE.fullmatch(self.device):
            raise OptionError(f"{self.device!r} is no device; use auto, cuda, cuda:1, mps or cpu")
