"""The program as a whole: help, version, completion, and how light it starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lorakit_cli import __version__

HEAVY = ("torch", "diffusers", "transformers", "peft", "numpy", "PIL", "safetensors", "huggingface_hub", "httpx2")
ROOT = Path(__file__).parent.parent


def test_version(lorakit):
    assert lorakit("--version").stdout == f"lorakit {__version__}\n"


def test_help_of_every_command_has_an_example(lorakit):
    listed = lorakit("--help").stdout
    for command in (
        "generate",
        "grid",
        "fuse",
        "verify",
        "unfuse",
        "save",
        "convert",
        "merge",
        "resize",
        "extract",
        "inspect",
        "list-adapters",
    ):
        assert f"\n  {command} " in listed
        text = lorakit(command, "--help").stdout
        assert f"Example: lorakit {command} " in text
    assert "Example: lorakit generate" in listed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("generat",), "error: No such command 'generat'"),
        (("generate",), "error: there is nothing to draw: give PROMPT, --prompt-file FILE or --from PICTURE"),
        (("generate", "x", "--sceed", 1), "error: No such option: --sceed"),
        (("generate", "x", "--dtype", "int3"), "error: Invalid value for '--dtype'"),
        (("generate", "x", "--count", 0), "error: Invalid value for '--count'"),
        (("generate", "x", "--steps", "many"), "error: Invalid value for '--steps'"),
        (
            ("generate", "x", "--base", ""),
            "error: Invalid value for '--base' / '-b': it is empty; leave the option out",
        ),
        (("generate", "--from", ""), "error: Invalid value for '--from': it is empty; leave the option out or give it"),
        (("inspect",), "error: Missing argument 'FILE…'; `lorakit inspect --help` shows what there is"),
        (("inspect", "toy", "--base"), "error: Option '--base' requires an argument"),
    ],
)
def test_wrong_usage_is_exit_2_and_one_line(lorakit, arguments, message):
    result = lorakit(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(message)


def test_without_arguments_the_help_is_shown(lorakit):
    result = lorakit()
    assert (result.exit_code, result.stdout) == (2, "")
    assert "list-adapters" in result.stderr


def loaded_by(arguments, libraries=HEAVY):
    """Run the program in a process of its own; give the libraries that it has loaded, and its exit code."""
    code = (
        "import sys\nfrom lorakit_cli.app import app\n"
        f"try: app({arguments!r})\nexcept SystemExit as end: code = end.code\n"
        f"print([name for name in {libraries} if name in sys.modules], code, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["generate", "--help"],
        ["list-adapters"],
        ["list-adapters", "--base", "{base}"],
        ["list-adapters", "--base", "{checkpoint}"],
        ["inspect", "{ink}", "--base", "{checkpoint}"],
        ["inspect", "toy", "pixel"],
        ["inspect", "{ink}", "--base", "{base}", "--keys"],
        ["save", "--base", "{base}", "-l", "{ink}:0.5", "--dry-run"],
        ["grid", "--base", "{base}", "-l", "{ink}", "--axis", "ink=0,0.5,1", "--out", "grid", "--dry-run", "x"],
        ["generate", "--base", "{base}", "-l", "{ink}:0.5", "--block-scales", 'ink={{"unet": 0.5}}', "--dry-run", "x"],
        ["generate", "--base", "{base}", "-l", "{ink}", "--guidance", "7.5", "--dry-run", "x"],
    ],
)
def test_what_reads_headers_only_loads_no_heavy_library(base, checkpoint, adapters, arguments):
    ink = adapters / "ink.safetensors"
    arguments = [part.format(base=base, checkpoint=checkpoint, ink=ink) for part in arguments]
    # pydantic is what Typer converts numbers with.
    assert loaded_by(arguments, (*HEAVY, "pydantic")) == "[] 0"


@pytest.mark.parametrize("options", [[], ["--adapters-only"]])
def test_adapters_are_saved_without_any_heavy_library(base, adapters, here, options):
    arguments = ["save", "--base", str(base), "-l", f"{adapters / 'ink.safetensors'}:0.5", "--out", "set", *options]
    assert loaded_by(arguments) == "[] 0"
    assert (here / "set" / "adapters" / "ink.safetensors").is_file()


@pytest.mark.parametrize(
    "arguments",
    [
        ["resize", "{ink}", "--rank", "2", "--out", "new.safetensors"],
        ["resize", "{ink}", "--size", "200KB", "--to", "kohya", "--dtype", "bf16", "--out", "new.safetensors"],
        ["merge", "-l", "{ink}", "-l", "{wash}:0.5", "--out", "new.safetensors"],
        ["merge", "-l", "{ink}", "-l", "{wash}:0.5", "--rank", "3", "--out", "new.safetensors"],
        ["merge", "-l", "{ink}", "-l", "{wash}:0.5", "--analyze"],
    ],
)
def test_products_of_factors_are_done_with_before_torch_would_have_started(base, adapters, here, arguments):
    places = {name: adapters / f"{name}.safetensors" for name in ("ink", "wash")}
    arguments = [*(part.format(**places) for part in arguments), "--base", str(base)]
    assert loaded_by(arguments) == "['numpy'] 0"


def test_adapters_of_8_bits_need_no_torch_either(base, adapters, here):
    """Nor does a thread that reads them start it beside others that compute."""
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(adapters / "ink.safetensors")
    names = sorted(tensors)
    small = {name: tensors[name].to(torch.float8_e4m3fn) for name in names[::4] if tensors[name].dim() > 1}
    save_file(tensors | small, here / "mixed.safetensors")
    arguments = ["resize", "mixed.safetensors", "--rank", "2", "--base", str(base), "--out", "new.safetensors"]
    assert loaded_by(arguments) == "['numpy'] 0"


def complete(line, shell="zsh", code="from lorakit_cli.app import main; main()"):
    variables = os.environ | {"_LORAKIT_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": line}
    variables |= {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv[0] = 'lorakit'\n{code}"],
        env=variables,
        capture_output=True,
        text=True,
    )


def test_completion_knows_the_library_and_stays_light(adapters, here):
    (here / "lorakit.toml").write_text(f'adapters_dir = "{adapters}"')
    assert complete("lorakit generate --lora ", "bash").stdout.split() == ["ink", "wash", "toy", "pixel"]
    assert complete("lorakit generate -l to", "bash").stdout.split() == ["toy"]
    code = f"""
from lorakit_cli.app import main
try: main()
finally: print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""
    done = complete("lorakit list-adapters --lora w", "bash", code)
    assert done.stdout.split() == ["wash"]
    assert done.stderr.splitlines()[-1] == "[]"


def test_completion_of_a_broken_library_is_empty(here):
    (here / "lorakit.toml").write_text("base = 3")
    done = complete("lorakit generate --lora t", "bash")
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_the_completion_scripts_are_current():
    done = subprocess.run(
        [sys.executable, ROOT / "completions" / "write.py", "--check"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("module", sorted(str(p.relative_to(ROOT)) for p in (ROOT / "lorakit_cli").rglob("*.py")))
def test_dependencies_point_one_way(module):
    """commands -> service -> {sources, formats, kinds, architectures, core}; the latter -> core; everyone -> errors."""
    import ast

    allowed = {
        "errors": set(),
        "demo": set(),
        "core": {"core", "errors"},
        "formats": {"formats", "core", "errors"},
        "kinds": {"kinds", "core", "errors"},
        "architectures": {"architectures", "core", "demo", "errors"},
        "sources": {"sources", "core", "demo", "errors"},
        "service": {"service", "sources", "formats", "kinds", "architectures", "core", "errors", "__init__"},
        "commands": {"commands", "service", "sources", "core", "errors", "__init__"},
        "app": {"commands", "core", "errors", "__init__"},
        "__main__": {"app"},
        "__init__": set(),
        # The scripts that made the embedded model use the product; nothing uses them.
        "training": {"training", "service", "core", "demo"},
    }
    parts = Path(module).with_suffix("").parts[1:]
    room = "training" if parts[:2] == ("demo", "training") else parts[0]
    tree = ast.parse((ROOT / module).read_text())
    # What stands under `if TYPE_CHECKING:` is not imported.
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            if name.split(".")[0] == "lorakit_cli":
                used = name.split(".")[1:] or ["__init__"]
                target = "training" if used[:2] == ["demo", "training"] else used[0]
                assert target in allowed[room], f"{module} imports {name}: {room} may use {sorted(allowed[room])}"
            library = name.split(".")[0]
            lazily = node not in tree.body and library in LAZILY.get(room, ())
            allowed_here = room in ("service", "training") or (module, name) in HEAVY_ELSEWHERE or lazily
            assert library not in HEAVY or allowed_here, module


# Inside functions only: what needs it there is about to use it.
LAZILY = {"sources": {"huggingface_hub", "httpx2"}, "kinds": {"torch"}}
WRITES_TABLES = str(Path("lorakit_cli/architectures/tables/write.py"))
HEAVY_ELSEWHERE = {
    (str(Path("lorakit_cli/core/delta.py")), "torch"),
    # Makes the tables so that what reads them needs none of these.
    *((WRITES_TABLES, library) for library in ("torch", "diffusers", "transformers")),
}


@pytest.mark.parametrize("importing", ["lorakit_cli.app", "typer", "lorakit_cli.service.request", "torch", "diffusers"])
def test_interrupted_while_it_still_imports_it_says_130(here, importing):
    """Ctrl-C at a chosen import, from the first to the last, as a finder that raises what the signal would."""
    code = f"""
import sys
from lorakit_cli.__main__ import main

class Finger:
    def find_spec(self, name, path=None, target=None):
        if name == {importing!r}:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Finger())
sys.argv[1:] = ["generate", "--seed", "1", "x"]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")
    assert list(here.iterdir()) == []
