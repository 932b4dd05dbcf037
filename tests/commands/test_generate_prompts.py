"""Several prompts in one run of `lorakit generate`, and the trigger words of its adapters."""

import io
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.commands.conftest import names

FILE = """# what I want to see
a red heart

  a blue heart <lora:{adapters}/ink.safetensors:0.5>
# not this
A RED HEART
a green heart <lora:{adapters}/wash.safetensors:1>
a pink heart
"""


@pytest.fixture
def prompts(adapters):
    Path("prompts.txt").write_text(FILE.format(adapters=adapters), encoding="utf-8")
    return "prompts.txt"


def pixels(path):
    with Image.open(path) as picture:
        return picture.tobytes()


@pytest.fixture
def several(lorakit, base, prompts):
    def run(*arguments):
        return lorakit("generate", "--base", base, "--steps", 2, "--prompt-file", prompts, *arguments)

    return run


def test_every_prompt_of_a_file_with_every_seed(draw, several, adapters):
    result = several("--seed", "1-2", "--out", "of/")
    assert result.exit_code == 0
    stems = ["a-red-heart_seed1", "a-red-heart_seed2", "a-blue-heart_seed1", "a-blue-heart_seed2"]
    stems += ["a-red-heart_seed1_2", "a-red-heart_seed2_2", "a-green-heart_seed1", "a-green-heart_seed2"]
    stems += ["a-pink-heart_seed1", "a-pink-heart_seed2"]
    assert result.stdout.split() == [f"of/{stem}.png" for stem in stems]
    assert result.stderr == "seed 1 2\n"
    # Each is the picture that it is alone, whatever was drawn before it.
    alone = {
        "a-red-heart_seed2": ("a red heart",),
        "a-red-heart_seed2_2": ("A RED HEART",),
        "a-blue-heart_seed2": ("a blue heart", "-l", f"{adapters}/ink.safetensors:0.5"),
        "a-green-heart_seed2": ("a green heart", "-l", f"{adapters}/wash.safetensors:1"),
        "a-pink-heart_seed2": ("a pink heart",),
    }
    for stem, (prompt, *options) in alone.items():
        assert draw(*options, "--seed", 2, "--out", "alone.png", "--overwrite", prompt=prompt).exit_code == 0
        assert Path(f"of/{stem}.png").read_bytes() == Path("alone.png").read_bytes()


def test_weights_change_as_seldom_as_can_be(several, monkeypatch):
    from lorakit_cli.service.session import Session

    put_in, loaded = [], []
    whole, first = Session.put_in, Session.__init__
    monkeypatch.setattr(Session, "put_in", lambda self, plan: (put_in.append(plan), whole(self, plan))[1])
    monkeypatch.setattr(Session, "__init__", lambda self, *rest: (loaded.append(1), first(self, *rest))[1])
    report = json.loads(several("--seed", "1-2", "--json", "--out", "x.webp").stdout)
    assert len(loaded) == 1
    # Without any first, then the one that touches fewer tensors.
    assert [[adapter.name for adapter in plan.adapters] for plan in put_in] == [[], ["wash"], ["ink"]]
    assert [picture["path"] for picture in report["pictures"]][:3] == [
        "x_1_seed1.webp",
        "x_1_seed2.webp",
        "x_2_seed1.webp",
    ]
    assert [picture["adapters"] for picture in report["pictures"]][2:8:2] == [{"ink": 0.5}, {}, {"wash": 1.0}]
    assert report["pictures"][2]["prompt"] == "a blue heart"


def test_stdin_and_a_dry_run(lorakit, base, prompts, here, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfone\r\ntwo\r\n")))
    from typer.testing import CliRunner

    from lorakit_cli.app import app

    options = ["generate", "--base", str(base), "--prompt-file", "-", "--seed", "3", "--dry-run"]
    done = CliRunner().invoke(app, options, input=b"\xef\xbb\xbfone\r\n#two\r\nthree")
    assert done.stdout.splitlines()[-2:] == ["would write one_seed3.png", "would write three_seed3.png"]
    report = json.loads(
        lorakit("generate", "--base", base, "--prompt-file", prompts, "--seed", 3, "--dry-run", "--json").stdout
    )
    assert report["prompts"] == ["a red heart", "a blue heart", "A RED HEART", "a green heart", "a pink heart"]
    assert [[adapter["name"] for adapter in plan["adapters"]] for plan in report["plans"]] == [[], ["ink"], ["wash"]]
    assert names(here) == ["prompts.txt"]


REFUSED = {
    "empty": (b"# nothing\n\n", "p.txt has no prompt in it; write one a line"),
    "not UTF-8": (b"one\n\xff\n", "--prompt-file p.txt: line 2 is not UTF-8 text"),
    "a bad tag": (b"x <lora:toy:y>\n", "the weight 'y' of adapter 'toy:y' is not a finite number"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_files_are_refused(lorakit, base, case):
    data, message = REFUSED[case]
    Path("p.txt").write_bytes(data)
    result = lorakit("generate", "--base", base, "--prompt-file", "p.txt")
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert message in line
    missing = lorakit("generate", "--base", base, "--prompt-file", "none.txt")
    assert "error: --prompt-file none.txt cannot be read: No such file" in missing.stderr
    many = lorakit("generate", "--base", base, "--prompt-file", "many.txt", "--count", 5000)
    assert many.exit_code == 2


def test_too_many_pictures_are_refused(lorakit, base):
    Path("many.txt").write_text("\n".join(f"prompt {number}" for number in range(3)))
    result = lorakit("generate", "--base", base, "--prompt-file", "many.txt", "--count", 4000)
    assert "error: prompts and seeds come to 12000 pictures; 10000 are the most" in result.stderr


@pytest.fixture
def library(adapters):
    Path("lorakit.toml").write_text(
        f'[adapters.a]\nsource = "{adapters}/ink.safetensors"\ntriggers = ["ink style", "inky"]\n'
        f'[adapters.b]\nsource = "{adapters}/wash.safetensors"\ntriggers = "wash"\n'
    )


def test_missing_triggers_are_put_in_front_and_recorded(draw, library):
    options = ("-l", "a", "-l", "b", "--add-triggers", "--seed", 1)
    result = draw(*options, "--out", "x.png")
    assert result.stderr == "added to the prompt: ink style, inky, wash\nseed 1\n"
    with Image.open("x.png") as picture:
        assert json.loads(picture.text["lorakit"])["prompt"] == "ink style, inky, wash, a red heart"
    assert draw(
        "-l", "a", "-l", "b", "--seed", 1, "--out", "y.png", prompt="ink style, inky, wash, a red heart"
    ).stderr == ("seed 1\n")
    assert Path("x.png").read_bytes() == Path("y.png").read_bytes()
    assert names(Path())[-2:] == ["x.png", "y.png"]

    def prompt(*arguments, text="a red heart"):
        return json.loads(draw("--dry-run", "--json", "--add-triggers", *arguments, prompt=text).stdout)["prompt"]

    # One word is enough, and only as a whole; who acts against its training, or not at all, gets none.
    assert prompt("-l", "a", text="Inky") == "Inky"
    assert prompt("-l", "b", text="washing") == "wash, washing"
    assert prompt("-l", "b", text="") == "wash"
    assert prompt("-l", "a:0", "-l", "b:-1") == "a red heart"
    assert prompt("-l", "b", "--scale", "-1") == "a red heart"
    assert prompt("-l", "b", "-l", "c=b") == "wash, a red heart"
    for against in (("-l", "b:-1"), ("-l", "b", "--scale", "-1"), ("-l", "b", "--scale", 0)):
        assert draw("--dry-run", *against).stderr == ""


def test_the_words_of_each_prompt_are_its_own(lorakit, base, library):
    Path("p.txt").write_text("one\nwash, two\nthree <lora:a:1>\n")
    run = ("generate", "--base", base, "-l", "b", "--prompt-file", "p.txt", "--dry-run", "--json")
    report = json.loads(lorakit(*run).stdout)
    assert report["warnings"] == [
        "in 2 of 3 prompts there is no trigger word of b: wash; --add-triggers puts them in",
        "in 1 of 3 prompts there is no trigger word of a: ink style, inky; --add-triggers puts them in",
    ]
    report = json.loads(lorakit(*run, "--add-triggers").stdout)
    assert report["prompts"] == ["wash, one", "wash, two", "wash, ink style, inky, three"]
    assert (report["warnings"], report["notes"]) == ([], ["added to the prompt: wash, ink style, inky"])


def test_a_file_of_trigger_words(draw, adapters):
    Path("lorakit.toml").write_text(f'[adapters.a]\nsource = "{adapters}/ink.safetensors"\ntriggers = "@words.txt"\n')
    result = draw("-l", "a", "--dry-run")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "lorakit.toml, line 3: adapters.a.triggers: the trigger file " in result.stderr
    assert result.stderr.endswith("words.txt cannot be read: No such file or directory\n")
    Path("words.txt").write_text("# from the model's page\nink style\n\nin the rain\n")
    assert "no trigger word of a: ink style, in the rain; " in draw("-l", "a", "--dry-run").stderr


def test_weights_act_are_recorded_and_made_again(draw, lorakit, base, monkeypatch):
    def record(path):
        with Image.open(path) as picture:
            return json.loads(picture.text["lorakit"])

    drawn = {"plain": "a red heart", "weighted": "a (red:1.8) heart", "one": "a (red:1.0) heart"}
    for name, prompt in drawn.items():
        assert draw("--seed", 1, "--out", f"{name}.png", prompt=prompt).stderr == "seed 1\n"
    assert draw("--seed", 1, "--literal-prompt", "--out", "literal.png", prompt=drawn["weighted"]).exit_code == 0
    assert len({pixels(f"{name}.png") for name in ("plain", "weighted", "literal")}) == 3
    assert max(abs(a - b) for a, b in zip(pixels("plain.png"), pixels("one.png"), strict=True)) <= 1
    assert [record(f"{name}.png")["literal_prompt"] for name in ("plain", "weighted", "literal")] == [True, False, True]
    assert record("weighted.png")["recipe"]["versions"].keys() - record("plain.png")["recipe"]["versions"] == {"compel"}
    for name in ("weighted", "literal"):
        assert (
            lorakit("generate", "--base", base, "--from", f"{name}.png", "--out", "again.png", "--overwrite").exit_code
            == 0
        )
        assert Path("again.png").read_bytes() == Path(f"{name}.png").read_bytes()

    monkeypatch.setitem(sys.modules, "compel", None)
    bare = draw("--out", "bare.png", prompt=drawn["weighted"])
    assert (bare.exit_code, bare.stdout) == (1, "")
    assert bare.stderr == (
        "error: the prompt has weights, such as (word:1.3), and what reads them is not installed: pip install "
        "'lorakit[compel]'; --literal-prompt takes it as it stands\n"
    )
    assert draw("--seed", 1, "--literal-prompt", "--out", "bare.png", prompt=drawn["weighted"]).exit_code == 0
    assert Path("bare.png").read_bytes() == Path("literal.png").read_bytes()
    long = draw("--seed", 1, "--out", "long.png", prompt="a red heart, " * 40 + "blue")
    assert "warning: the prompt is too long for this base, and its end is cut off: " in long.stderr
    assert "; with pip install 'lorakit[compel]' all of it is read\n" in long.stderr


def test_prompts_that_change_on_the_way_are_refused(draw):
    result = draw("--dry-run", prompt="a [cat:dog:0.5] (x:1.2)")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "error: the prompt changes from step to step, [cat:dog:0.5], which only the web UI does" in result.stderr
