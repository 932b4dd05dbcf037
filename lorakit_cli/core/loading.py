"""How a base is to be loaded: where, in which precision, with what in place of its own, and how memory is saved."""

import re
from dataclasses import dataclass

from lorakit_cli.core.user_path import user_path
from lorakit_cli.errors import BaseModelError, OptionError, did_you_mean

_DEVICE = re.compile(r"auto|cpu|mps|(cuda|xpu)(:\d{1,3})?", re.ASCII)
OFFLOADS = ("model", "sequential", "group")


@dataclass(frozen=True, slots=True)
class Loading:
    """How a base is loaded, the same for all pictures of one run; `auto` is chosen when the device is known.

    `vae` is the folder or file of an autoencoder that takes the place of the base's. `config` is the folder of a
    pipeline like a single-file base, for what such a file lacks. `offload` is one of OFFLOADS.
    """

    device: str = "auto"
    dtype: str = "auto"
    attach: bool = False
    vae: str | None = None
    config: str | None = None
    offload: str | None = None
    low_memory: bool = False
    compiled: bool = False

    def check(self) -> None:
        """Raise OptionError for what no machine has, BaseModelError for an autoencoder that is not there."""
        if self.vae is not None and not user_path(self.vae).exists():
            raise BaseModelError(
                f"--vae {self.vae}: there is no such folder or file; `hf download` brings one from the Hub"
            )
        if not _DEVICE.fullmatch(self.device):
            raise OptionError(f"{self.device!r} is no device; use auto, cuda, cuda:1, mps or cpu")
        if self.offload is not None and self.offload not in OFFLOADS:
            near = did_you_mean(self.offload, OFFLOADS) or ";"
            raise OptionError(f"--offload {self.offload!r} is not known{near} use {', '.join(OFFLOADS)}")
        if self.offload and self.device == "cpu":
            raise OptionError(
                f"--offload {self.offload} moves weights between memory and a GPU, so it needs --device cuda, xpu or "
                "mps; on cpu leave it out"
            )
