"""The configurations that models were published with, as far as they decide which parameters there are.

They are written out even where they are what the class takes by default: the defaults of several classes are no
published model, and all may change.
"""

from lorakit_cli.architectures.tables.published import image, stable_diffusion, video
from lorakit_cli.architectures.tables.published.model import Model, Sizes
from lorakit_cli.architectures.tables.published.text_encoders import TEXT_ENCODERS

__all__ = ["ARCHITECTURES", "TEXT_ENCODERS", "Model"]

# By the file's name.
ARCHITECTURES: Sizes = {**stable_diffusion.SIZES, **image.SIZES, **video.SIZES}
