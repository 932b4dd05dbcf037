"""Seeds, prompt tags, picture names and output files."""

import os
import stat
import sys
from pathlib import Path

import pytest

from lorakit_cli.core.output_file import new_file
from lorakit_cli.core.picture_names import PictureNames, slug
from lorakit_cli.core.prompt_tags import split_tags
from lorakit_cli.core.seeds import choose_seeds
from lorakit_cli.errors import AdapterSpecError, OptionError, OutputError, OutputExistsError


@pytest.mark.parametrize(
    ("texts", "count", "seeds"),
    [
        (["7"], None, [7]),
        (["1-4"], None, [1, 2, 3, 4]),
        (["1-2", "9", "0"], None, [1, 2, 9, 0]),
        (["1-3"], 3, [1, 2, 3]),
        (["7"], 3, [7, 8, 9]),
        (["4-4"], None, [4]),
    ],
)
def test_seeds(texts, count, seeds):
    assert choose_seeds(texts, count) == seeds


def test_random_seeds_differ_and_follow_each_other():
    first, second, third = choose_seeds([], 3)
    assert (second, third) == (first + 1, first + 2)
    assert len({choose_seeds([], None)[0] for _ in range(5)}) > 1


@pytest.mark.parametrize(
    "texts",
    [["x"], ["-1"], ["4-1"], ["1.5"], [""], ["1-2-3"], ["9" * 30], ["1-99999999"], ["1", "1"], ["9" * 5000]],
)
def test_impossible_seeds(texts):
    with pytest.raises(OptionError, match="--seed"):
        choose_seeds(texts, None)


def test_seeds_and_count_that_contradict():
    with pytest.raises(OptionError, match="--count 3 and 2 seeds contradict each other"):
        choose_seeds(["1-2"], 3)


@pytest.mark.parametrize(
    ("prompt", "text", "specs"),
    [
        ("a heart", "a heart", []),
        ("a  heart", "a  heart", []),
        ("a heart <lora:toy:0.5>", "a heart", ["toy:0.5"]),
        ("<lora:toy>, a heart, <lora:x=./b.safetensors:-1>", "a heart", ["toy", "x=./b.safetensors:-1"]),
        ("a <lora:toy:1> heart", "a heart", ["toy:1"]),
        ("<lora:toy:1>", "", ["toy:1"]),
        ("a <b> heart <3", "a <b> heart <3", []),
        ("a <lora:My toy v1.5:0.7> heart <LORA:x_2.1> <lyco:z:1>", "a heart", ["My_toy_v1_5:0.7", "x_2_1", "z:1"]),
    ],
)
def test_prompt_tags(prompt, text, specs):
    rest, found = split_tags(prompt)
    assert (rest, [str(spec) for spec in found]) == (text, specs)


@pytest.mark.parametrize("prompt", ["a heart <lora:toy:1", "<lora:>", "<lora:toy:1> <lora:<b>"])
def test_prompt_tag_without_an_end(prompt):
    with pytest.raises(AdapterSpecError, match="the prompt has a tag without an end, '<lora:"):
        split_tags(prompt)


def test_malformed_prompt_tag():
    with pytest.raises(AdapterSpecError, match="'toy:x'"):
        split_tags("a heart <lora:toy:x>")


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("A red heart!", "a-red-heart"),
        ("", "picture"),
        ("../../etc/passwd", "etc-passwd"),
        ("ein Herz für 日本", "ein-herz-für-日本"),
        ("word " * 30, "word-word-word-word-word-word-word-word-word"),
        ("x" * 300, "x" * 48),
        ("\0\n/", "picture"),
    ],
)
def test_slug(prompt, name):
    assert slug(prompt) == name


def test_names(here):
    def names(out, seeds=(1,), **options):
        return [str(path) for path in PictureNames.choose(out, "a heart", seeds, **options).paths]

    assert names(None) == ["a-heart_seed1.png"]
    Path("a-heart_seed1.png").touch()
    assert names(None, (1, 2)) == ["a-heart_seed1_2.png", "a-heart_seed2.png"]
    assert names("new/") == ["new/a-heart_seed1.png"]
    assert names("x.png") == ["x.png"]
    assert names("x.PNG", (1, 2)) == ["x_seed1.PNG", "x_seed2.PNG"]
    Path("x.png").touch()
    with pytest.raises(OutputExistsError, match=r"x\.png exists already; choose another name or add --overwrite"):
        names("x.png")
    assert names("x.png", overwrite=True) == ["x.png"]
    Path("folder.png").mkdir()
    assert names("folder.png") == ["folder.png/a-heart_seed1.png"]
    assert names("x.JPG") == ["x.JPG"]
    with pytest.raises(OptionError, match=r"pictures are written as \.png, \.webp, \.jpg, \.jpeg; a folder"):
        names("x.gif")
    with pytest.raises(OptionError, match=r"--quality 5: \.png loses nothing"):
        PictureNames.choose_all("new/", ["x"], [1], quality=5)
    with pytest.raises(OutputError, match="nowhere does not exist; create it first"):
        names("nowhere/x.png")
    with pytest.raises(OutputError, match=r"x\.png is not a folder"):
        names("x.png/y.png")
    with pytest.raises(OutputError, match="cannot create the folder"):
        PictureNames.choose("x.png/y/", "a heart", (1,)).require_writable()
    Path("dangling.png").symlink_to("nowhere.png")
    with pytest.raises(OutputExistsError):
        names("dangling.png")


def write(content, error=None, **options):
    with new_file(Path("x"), **options) as file:
        file.write(content)
        assert not Path("x").exists() or options
        if error:
            raise error


def test_a_file_is_written_whole_or_not_at_all(here):
    with pytest.raises(RuntimeError):
        write(b"half", RuntimeError())
    assert list(here.iterdir()) == []
    write(b"whole")
    assert Path("x").read_bytes() == b"whole"
    with pytest.raises(OutputExistsError):
        write(b"again")
    with pytest.raises(KeyboardInterrupt):
        write(b"other", KeyboardInterrupt(), overwrite=True)
    assert Path("x").read_bytes() == b"whole"
    write(b"new", overwrite=True)
    assert Path("x").read_bytes() == b"new"
    assert [path.name for path in here.iterdir()] == ["x"]


def test_another_run_that_was_faster_keeps_its_file(here):
    def race():
        with new_file(Path("x")) as file:
            file.write(b"mine")
            Path("x").write_bytes(b"theirs")

    with pytest.raises(OutputExistsError, match="written by another run"):
        race()
    assert Path("x").read_bytes() == b"theirs"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_files_have_normal_permissions(here):
    old = os.umask(0o027)
    try:
        with new_file(Path("x")) as file:
            file.write(b"")
    finally:
        os.umask(old)
    assert stat.S_IMODE(Path("x").stat().st_mode) == 0o640
