"""Draw README's sheet: `python -m lorakit_cli.demo.training.sheet OUT.png`."""

import sys

from PIL import Image, ImageDraw

from lorakit_cli.demo.training.evaluate import Studio, prompt_of
from lorakit_cli.demo.training.pictures import to_image
from lorakit_cli.demo.training.words import Scene

SCENES: tuple[Scene, ...] = (
    ("heart", "red", "white"),
    ("star", "yellow", "blue"),
    ("circle", "green", "pink"),
    ("diamond", "cyan", "purple"),
    ("flower", "pink", "green"),
    ("triangle", "orange", "black"),
    ("square", "purple", "yellow"),
    ("cross", "white", "red"),
)
ROWS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("base", (), ()),
    ("toy:1.0", ("toy:1.0",), ("toy",)),
    ("pixel:1.0", ("pixel:1.0",), ("pixel",)),
    ("toy:1.0 pixel:0.5", ("toy:1.0", "pixel:0.5"), ("toy", "pixel")),
    ("toy:1.0 pixel:1.0", ("toy:1.0", "pixel:1.0"), ("toy", "pixel")),
)
SEED = 7
_ZOOM, _GAP, _LABEL = 96, 4, 130


def main() -> None:
    """Draw one row per setting, one column per scene, all with one seed."""
    studio = Studio()
    step = _ZOOM + _GAP
    sheet = Image.new("RGB", (_LABEL + step * len(SCENES), step * len(ROWS) - _GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for row, (label, specs, triggers) in enumerate(ROWS):
        pictures = studio.draw(specs, [prompt_of(scene, triggers) for scene in SCENES], [SEED] * len(SCENES))
        pen.multiline_text((4, row * step + 32), label.replace(" ", "\n"), fill="black", font_size=16)
        for column, picture in enumerate(pictures):
            large = to_image(picture).resize((_ZOOM, _ZOOM), Image.Resampling.LANCZOS)
            sheet.paste(large, (_LABEL + column * step, row * step))
    sheet.save(sys.argv[1], optimize=True)


if __name__ == "__main__":
    main()
