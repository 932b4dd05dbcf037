"""Options of any kind as plain values and back, and the files that they name."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from lorakit_cli.core.generation import Settings
from lorakit_cli.core.loading import Loading
from lorakit_cli.core.option_values import option_values, options_from, overridden
from lorakit_cli.errors import RecipeError
from lorakit_cli.service.option_files import option_files, overlaid


@dataclass(frozen=True, slots=True)
class Many:
    whole: int | None = None
    ratio: float = 0.5
    name: str = "x"
    on: bool = False
    where: Literal["here", "there"] = "here"
    pair: tuple[int, str] = (1, "a")
    row: tuple[float, ...] = ()
    table: Mapping[str, object] = field(default_factory=dict)
    place: Path | None = None
    source: str | None = None


FULL = Many(3, 0.25, "y", True, "there", (2, "b"), (1.0, 2.5), {"k": [1, None]}, Path("p"), "owner/repo")


def test_values_go_through_json_and_back():
    values = json.loads(json.dumps(option_values(FULL), default=str))
    assert options_from(Many, values) == FULL
    assert option_values(Many()) == option_values(Settings()) == option_values(Loading()) == {}
    assert option_values(Many(whole=0)) == {"whole": 0}
    assert options_from(Settings, option_values(Settings(8, 16, 2, 3.0))) == Settings(8, 16, 2, 3.0)
    assert overridden(Many(name="z", on=True), FULL).name == "z"
    assert overridden(Many(), FULL) == FULL


BAD = [
    {"whole": "3"}, {"whole": True}, {"whole": 1.5}, {"ratio": "1"}, {"ratio": float("nan")}, {"name": None},
    {"on": 1}, {"where": "nowhere"}, {"pair": [1]}, {"pair": ["1", "a"]}, {"row": 3}, {"row": ["x"]}, {"table": []},
    {"place": 3}, {"magic": 1}, {"__class__": "x"},
]  # fmt: skip


@pytest.mark.parametrize("values", BAD)
def test_values_of_another_kind_are_refused(values):
    (name,) = values
    with pytest.raises(ValueError, match=name):
        options_from(Many, values)


def test_files_are_told_by_their_contents_and_found_again(here):
    (here / "in.png").write_bytes(b"picture")
    (here / "vae").mkdir()
    # A plain word stays one, whatever is called so.
    (here / "y").touch()
    options = Many(name="y", place=here / "in.png", source="./vae", table={"k": "in.png"})
    files = option_files(options, Settings())
    assert {name: (file.file, bool(file.sha256)) for name, file in files.items()} == {
        "place": ("in.png", True),
        "source": ("vae", False),
    }
    beside = here.parent / "beside"
    beside.mkdir()
    (here / "in.png").rename(beside / "in.png")
    (here / "in.png").write_bytes(b"another")
    found = overlaid({"ratio": 1.0}, files, Many(), beside)
    assert found == {"ratio": 1.0, "place": str(beside / "in.png"), "source": "vae"}
    assert options_from(Many, found).place == beside / "in.png"
    # What is given need not be there any more.
    (beside / "in.png").unlink()
    assert "place" not in overlaid({}, files, Many(place=Path("own")), beside)
    with pytest.raises(RecipeError, match=r"in\.png, sha256 .{12}, which --place was, is not here.*--place PATH says"):
        overlaid({}, files, Many(), beside)
