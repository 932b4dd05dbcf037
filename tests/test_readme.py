"""Whatever README shows is run."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lorakit_cli.demo import ADAPTERS, BASE

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line
    for kind, text in BLOCKS
    if kind == "sh" and "for " not in text
    for line in text.splitlines()
    if line.startswith("lorakit ")
]


def makers(command):
    """Give the commands of the same block that write what this one reads."""
    lines = next(text.splitlines() for kind, text in BLOCKS if kind == "sh" and command in text.splitlines())
    earlier = lines[: lines.index(command)]
    made = [(line, set(re.findall(r"--out (\S+)", line))) for line in earlier if line.startswith("lorakit ")]
    return [line for line, outputs in made if outputs & set(shlex.split(command))]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands(lorakit, here, command):
    for maker in makers(command):
        assert lorakit(*shlex.split(maker)[1:]).exit_code == 0
    result = lorakit(*shlex.split(command)[1:])
    assert result.exit_code == 0, result.stderr
    assert result.stdout
    assert "warning" not in result.stderr
    made = {path.suffix for path in here.rglob("*")}
    if "convert" in command:
        assert ".safetensors" in made
    else:
        draws = "--plot" in command or (command.split()[1] in ("generate", "grid") and "--dry-run" not in command)
        assert (".png" in made) == draws


def test_every_command_has_an_example(lorakit):
    listed = re.findall(r"^  ([a-z-]+) ", lorakit("--help").stdout.split("Commands:")[1], re.MULTILINE)
    assert listed
    for name in listed:
        assert any(command.split()[1] == name for command in COMMANDS)


@pytest.mark.parametrize(
    ("command", "begins"),
    [
        ("--lora toy --lora pixel:0.5", "base demo"),
        ("lorakit inspect toy", "embedded"),
        ("lorakit verify my-model", "my-model: sound"),
    ],
)
def test_what_is_printed_is_what_readme_shows(lorakit, command, begins):
    (shown,) = [text for kind, text in BLOCKS if kind == "text" and text.startswith(begins)]
    (line,) = [line for line in COMMANDS if line.endswith(command) or ("--dry-run" in line and command in line)]
    for maker in makers(line):
        lorakit(*shlex.split(maker)[1:])
    printed = lorakit(*shlex.split(line)[1:]).stdout
    printed = printed.replace(str(BASE), "demo")
    for path, _ in ADAPTERS.values():
        printed = printed.replace(str(path), "embedded")
    assert printed == shown


def test_the_table_of_layouts_is_what_there_is():
    from lorakit_cli.formats import FORMATS
    from lorakit_cli.formats.targets import TARGETS

    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in README.splitlines() if line[:3] == "| `"]
    table = {row[0].strip("`"): row[2:] for row in rows if len(row) == 6}
    assert table.keys() == {layout.name for layout in FORMATS}
    for name, cells in table.items():
        assert cells == ["yes", "yes", "yes", "yes" if name in TARGETS else ""]


def test_the_loop_runs_in_a_shell(here):
    (loop,) = [text for kind, text in BLOCKS if kind == "sh" and text.startswith("for ")]
    bin_folder = Path(sys.executable).parent
    script = f"set -e\nPATH={shlex.quote(str(bin_folder))}:$PATH\n{loop}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [f"heart-{weight}.png" for weight in (0.3, 0.6, 0.9)]
    assert len({Path(name).read_bytes() for name in done.stdout.split()}) == 3


def test_prompts_come_from_a_pipe(here):
    (pipe,) = [text for kind, text in BLOCKS if kind == "sh" and text.startswith("printf ")]
    script = f"set -e\nPATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH\n{pipe}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "added to the prompt: toy_face, pixel art\nseed 1 2\n")
    assert len(done.stdout.split()) == 4


def test_the_python_example(here, capsys):
    (code,) = [text for kind, text in BLOCKS if kind == "python"]
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr()
    assert printed.err == ""
    path, _ = printed.out.split()
    assert Path(path).exists()


def test_the_library_example_is_read(here, adapters):
    (text,) = [text for kind, text in BLOCKS if kind == "toml"]
    Path("lorakit.toml").write_text(text)
    Path("loras").mkdir()
    Path("loras/ink-v3.safetensors").write_bytes((adapters / "ink.safetensors").read_bytes())
    from lorakit_cli.sources.library import open_library

    library = open_library()
    assert {"ink", "ink-v3", "toy", "pixel"} == set(library.entries)
    assert [str(spec) for spec in library.use] == ["toy:0.8"]


def test_the_two_commands_are_targets_of_make():
    makefile = (ROOT / "Makefile").read_text()
    (block,) = [text for kind, text in BLOCKS if kind == "sh" and "make demo" in text]
    for line in block.splitlines():
        assert re.search(rf"^{line.split()[1]}:", makefile, re.MULTILINE)
    ci = (ROOT / ".ci" / "run").read_text()
    assert "make test" in ci
    assert "make check" in ci


def test_pictures_and_links_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists()
