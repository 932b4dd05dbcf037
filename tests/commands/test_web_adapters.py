"""Adapters by their address or version on CivitAI, through the commands: the same as the file on this machine."""

import hashlib
import json
import os
import subprocess
import sys

import pytest
from PIL import Image
from safetensors.torch import load_file

from tests.outputs import refused, weights
from tests.pickles import write

TOKEN = "c1v1t41-t0ken"
SECRETS = (TOKEN, "s1gned", "pa55word")


@pytest.fixture
def ink(site, adapters, monkeypatch):
    """An adapter as version 12345 on CivitAI, whose token is known; give the address of the file itself."""
    content = (adapters / "ink.safetensors").read_bytes()
    url = site.serve("/files/ink.safetensors", content)
    site.redirect("/api/download/models/12345", f"{site.other}/files/ink.safetensors?sig=s1gned")
    file = {
        "name": "ink_v3.safetensors", "type": "Model", "primary": True, "downloadUrl":
        f"{site.url}/api/download/models/12345", "hashes": {"SHA256": hashlib.sha256(content).hexdigest().upper()},
    }  # fmt: skip
    version = {"trainedWords": ["inky"], "baseModel": "SD 1.5", "model": {"type": "LORA", "name": "Ink"}}
    site.serve_json("/api/v1/model-versions/12345", version | {"files": [file]}, token=TOKEN)
    monkeypatch.setenv("CIVITAI_API_TOKEN", TOKEN)
    return url


def leaks(folder):
    """Name the files in which a secret stands."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return [str(file) for file in files if any(secret.encode() in file.read_bytes() for secret in SECRETS)]


def test_generate_draws_the_same_as_with_the_file(draw, adapters, ink, site, here, web_cache, monkeypatch):
    assert draw("-l", f"{adapters}/ink.safetensors:0.5", "--seed", 7, "--out", "local.png").exit_code == 0
    result = draw("-l", "civitai:12345:0.5", "--seed", 7, "--out", "civitai.png")
    assert (result.exit_code, result.stderr) == (
        0,
        "warning: the prompt has no trigger word of civitai_12345: inky; --add-triggers puts them in\nseed 7\n",
    )
    # From now on without the network.
    count = len(site.requests)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert draw("-l", "look=civitai:12345:0.5", "--seed", 7, "--out", "offline.png").exit_code == 0
    assert len(site.requests) == count
    pictures = [Image.open(f"{name}.png") for name in ("local", "civitai", "offline")]
    assert len({picture.tobytes() for picture in pictures}) == 1
    names = [json.loads(picture.text["lorakit"])["recipe"]["adapters"][0]["name"] for picture in pictures]
    assert names == ["ink", "civitai_12345", "look"]
    assert leaks(here) == leaks(web_cache) == []


def test_dry_run_and_inspect_see_the_same_and_load_no_torch(adapters, base, ink, look, certificates, tmp_path):
    code = (
        "import sys\nfrom lorakit_cli.app import app\n"
        "try: app(sys.argv[1:])\nexcept SystemExit as end: code = end.code\n"
        "print([name for name in ('torch', 'diffusers', 'numpy', 'huggingface_hub', 'httpx2') if name in sys.modules],"
        " code, file=sys.stderr)"
    )

    def run(*arguments):
        command = [sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=os.environ)

    plan = "generate", "--base", base, "--seed", 1, "--dry-run", "--json", "x", "-l"
    local = run(*plan, f"{adapters}/ink.safetensors:0.5")
    remote = run(*plan, f"{ink}:0.5")
    assert [done.stderr.splitlines()[-1] for done in (local, remote)] == ["[] 0", "['httpx2'] 0"]
    facts = [json.loads(done.stdout)["plan"] for done in (local, remote)]
    paths = [fact["adapters"][0].pop("path") for fact in facts]
    assert paths[0] != paths[1]
    assert facts[0] == facts[1]
    inspected = run("inspect", "--json", "civitai:12345")
    assert inspected.stderr.splitlines()[-1] == "['httpx2'] 0"
    report = json.loads(inspected.stdout)
    _, here = look(adapters / "ink.safetensors")
    assert report["path"].endswith("ink_v3.safetensors")
    assert (report["triggers"], report["beside"]) == (["inky"], [".civitai.info"])
    assert [one["text"] for one in report["stated_architectures"]][-1] == "SD 1.5"
    for name in ("architecture", "layers", "ranks", "alphas", "size", "algorithms", "components"):
        assert report[name] == here[name]


def test_a_library_is_listed_without_the_network(lorakit, here, ink, site):
    (here / "lorakit.toml").write_text(
        f'[adapters.there]\nsource = "{ink.replace("https://", "https://jane:pa55word@")}?sig=s1gned"\n'
        '[adapters.civ]\nsource = "civitai:12345"\nweight = 0.25\n[adapters.odd]\nsource = "civitai:x"\n'
    )

    def rows():
        listed = json.loads(lorakit("list-adapters", "--json").stdout)["adapters"]
        return {row["name"]: row for row in listed}

    assert (rows()["there"]["cached"], rows()["there"]["problem"]) == (False, None)
    assert (rows()["civ"]["cached"], rows()["civ"]["problem"]) == (False, None)
    assert "names no version on CivitAI" in rows()["odd"]["problem"]
    assert site.requests == []
    assert lorakit("inspect", "civ", "there").exit_code == 0
    count = len(site.requests)
    known = rows()
    assert (known["civ"]["problem"], known["civ"]["layers"], known["civ"]["triggers"]) == (None, 188, ["inky"])
    assert known["there"]["size"] == known["civ"]["size"] is not None
    assert len(site.requests) == count


def test_a_recipe_names_the_source_without_secrets_and_finds_the_file_again(
    lorakit, base, adapters, ink, site, here, web_cache
):
    asked = ink.replace("https://", "https://jane:pa55word@") + "?sig=s1gned&part=1"
    arguments = "--base", base, "-l", "civitai:12345:0.5", "-l", f"other={adapters}/wash.safetensors", "--out"
    assert lorakit("fuse", *arguments, "out").exit_code == 0
    assert lorakit("fuse", "--base", base, "-l", f"a={asked}:0.5", "--out", "signed").exit_code == 0
    sources = [
        [adapter["source"] for adapter in json.loads((here / out / "lorakit.json").read_text())["adapters"]]
        for out in ("out", "signed")
    ]
    assert sources == [["civitai:12345", f"{adapters}/wash.safetensors"], [f"{ink}?part=1"]]
    assert leaks(here) == leaks(web_cache) == []
    local = "-l", f"{adapters}/ink.safetensors:0.5", "-l", f"{adapters}/wash.safetensors"
    assert lorakit("fuse", "--base", base, *local, "--out", "local").exit_code == 0
    assert weights(here / "out") == weights(here / "local")
    # Found by its hash, although the address with the key is known to nobody any more.
    count = len(site.requests)
    for out in ("out", "signed"):
        result = lorakit("verify", out)
        assert result.exit_code == 0, result.stderr
    assert len(site.requests) == count
    # What a recipe names is not fetched unasked.
    (web_cache / "web").rename(web_cache / "gone")
    (here / "lorakit.toml").write_text('[adapters.mine]\nsource = "civitai:12345"\n')
    message = refused(lorakit("verify", "out"))
    assert message.endswith("--lora civitai_12345=civitai:12345 says where it is")
    assert len(site.requests) == count
    assert lorakit("verify", "out", "--lora", "civitai_12345=civitai:12345").exit_code == 0


def test_convert_and_save_take_them(lorakit, base, adapters, ink, here):
    result = lorakit("convert", ink, "--to", "peft", "--base", base, "--out", "peft")
    assert result.exit_code == 0, result.stderr
    assert lorakit("convert", adapters / "ink.safetensors", "--to", "peft", "-b", base, "-o", "own").exit_code == 0
    assert weights(here / "peft") == weights(here / "own") != {}
    assert lorakit("save", "--base", base, "-l", "civitai:12345:0.5", "--out", "set").exit_code == 0
    kept = load_file(here / "set" / "adapters" / "civitai_12345.safetensors")
    assert len(kept) == len(load_file(adapters / "ink.safetensors"))
    assert leaks(here) == []


def test_errors_are_one_line_without_secrets(lorakit, base, ink, site, monkeypatch):
    arguments = "generate", "--base", base, "--dry-run", "x", "-l"
    asked = ink.replace("https://", "https://jane:pa55word@") + "?sig=s1gned"
    site.files.clear()
    assert refused(lorakit(*arguments, asked)) == f"localhost has no {ink} (HTTP 404); check the address"
    assert "adapters are fetched over https only" in refused(lorakit(*arguments, "http://host/x.safetensors"), 2)
    assert "is the page of a model" in refused(lorakit(*arguments, f"{site.url}/models/3"), 2)
    monkeypatch.setenv("LORAKIT_OFFLINE", "1")
    assert refused(lorakit(*arguments, "civitai:12345")) == (
        "civitai:12345 is not in the cache, and LORAKIT_OFFLINE forbids the network; unset it once, or give the path "
        "of a file"
    )


def test_a_pickle_comes_only_where_it_may_be_opened(lorakit, adapters, site, tmp_path):
    tensors = load_file(adapters / "wash.safetensors")
    url = site.serve("/wash.pt", write(tmp_path / "wash.pt", tensors).read_bytes())
    assert "is 'wash.pt', a pickle file" in refused(lorakit("inspect", url))
    assert site.requests == []
    result = lorakit("inspect", url, "--allow-pickle", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["layers"] == 132


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.parametrize(("options", "shown"), [([], True), (["--quiet"], False)])
def test_a_terminal_shows_the_download(ink, options, shown):
    import pty

    leader, follower = pty.openpty()
    variables = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    command = [sys.executable, "-m", "lorakit_cli", "inspect", ink, "--json", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=follower, env=variables) as running:
        os.close(follower)
        drawn = b""
        try:
            while piece := os.read(leader, 65536):
                drawn += piece
        except OSError:
            # The other end is closed.
            pass
        report = json.loads(running.stdout.read())
    os.close(leader)
    assert (running.returncode, report["usable"]) == (0, True)
    assert (b"downloading ink.safetensors" in drawn) == shown
