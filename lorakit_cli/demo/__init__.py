"""The embedded model: a tiny Stable Diffusion pipeline and two adapters made for it, on disk inside the package."""

from pathlib import Path

HERE = Path(__file__).parent

NAME = "demo"
"""The name the embedded base goes by."""

BASE = HERE / "base"
ADAPTERS: dict[str, tuple[Path, tuple[str, ...]]] = {
    "toy": (HERE / "adapters" / "toy.safetensors", ("toy_face",)),
    "pixel": (HERE / "adapters" / "pixel.safetensors", ("pixel art",)),
}
"""Name -> file and trigger words."""
