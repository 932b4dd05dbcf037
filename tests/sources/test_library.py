import os
from pathlib import Path

import pytest

from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.core.hub_reference import HubReference
from lorakit_cli.errors import (
    AdapterSpecError,
    BaseModelError,
    DownloadError,
    FetchError,
    LibraryError,
    UnknownAdapterError,
)
from lorakit_cli.sources.library import open_library
from lorakit_cli.sources.local import BASE, find_adapter, find_adapters, find_base


def write(text, path="lorakit.toml"):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def find(text):
    return find_adapter(AdapterSpec.parse(text), open_library())


def test_without_any_file_there_are_the_embedded_ones():
    library = open_library()
    assert set(library.entries) == {"toy", "pixel"}
    assert library.entries["toy"].triggers == ("toy_face",)
    assert (library.base, library.use) == (None, None)


def test_a_whole_file(here, adapters):
    write(f"""
        base = "./bases/mine"
        use = ["ink:0.5", "toy"]
        adapters_dir = ["more", "{adapters}"]
        [adapters.ink-2]
        source = "{adapters}/ink.safetensors"
        weight = 0.7
        triggers = ["ink style"]
        base = "bases/mine"
    """)
    (here / "more").mkdir()
    (here / "bases" / "mine").mkdir(parents=True)
    library = open_library()
    assert set(library.entries) == {"toy", "pixel", "ink", "wash", "ink-2"}
    assert Path(library.base) == here / "bases" / "mine"
    assert [str(spec) for spec in library.use] == ["ink:0.5", "toy"]
    found = find("ink-2")
    assert (found.path, found.weight, found.triggers) == (adapters / "ink.safetensors", 0.7, ("ink style",))
    assert Path(found.base) == here / "bases" / "mine"
    assert find("ink-2:2").weight == 2
    assert find("x=ink-2:0").name == "x"
    assert find("x=ink-2:0").weight == 0
    assert find("ink").weight == 1


def test_nearest_folder_then_user_then_variable(here, tmp_path, monkeypatch):
    for path, weight in ((tmp_path / "config/lorakit/lorakit.toml", 2), (tmp_path / "named.toml", 3)):
        write(f'use = ["a:{weight}"]\n[adapters.a]\nsource="x.safetensors"\nweight={weight}\n', path)
    monkeypatch.setenv("LORAKIT_CONFIG", str(tmp_path / "named.toml"))
    assert open_library().entries["a"].weight == 2
    write('[adapters.a]\nsource="x.safetensors"\nweight=1\n', here.parent / "lorakit.toml")
    monkeypatch.chdir(here)
    assert open_library().entries["a"].weight == 1
    assert [str(spec) for spec in open_library().use] == ["a:2"]
    (tmp_path / "config/lorakit/lorakit.toml").unlink()
    (here.parent / "lorakit.toml").unlink()
    assert open_library().entries["a"].weight == 3


def test_paths_are_seen_from_their_own_file(here, adapters, monkeypatch):
    write('[adapters.a]\nsource = "files/a.safetensors"\n')
    (here / "files").mkdir()
    (here / "files" / "a.safetensors").write_bytes((adapters / "ink.safetensors").read_bytes())
    (here / "below").mkdir()
    monkeypatch.chdir(here / "below")
    assert find("a").path == here / "files" / "a.safetensors"


def test_paths_in_use_are_seen_from_their_own_file(here, adapters, monkeypatch):
    write('use = ["ink/ink.safetensors:0.5", "toy:1"]\n')
    (here / "ink").mkdir()
    (here / "ink" / "ink.safetensors").write_bytes((adapters / "ink.safetensors").read_bytes())
    (here / "below").mkdir()
    monkeypatch.chdir(here / "below")
    library = open_library()
    first, second = find_adapters(library.use, library)
    assert (first.path, first.weight, second.name) == (here / "ink" / "ink.safetensors", 0.5, "toy")


def test_a_missing_file_of_the_library_is_not_looked_for_elsewhere(here, adapters, monkeypatch):
    write('[adapters.a]\nsource = "ink.safetensors"\n')
    (here / "below").mkdir()
    (here / "below" / "ink.safetensors").write_bytes((adapters / "ink.safetensors").read_bytes())
    monkeypatch.chdir(here / "below")
    with pytest.raises(UnknownAdapterError, match=f"there is no adapter file {here}/ink"):
        find("a")


def test_two_files_that_come_to_one_name_are_both_there(here):
    (here / "loras").mkdir()
    for name in ("a.b", "a_b", "a b"):
        (here / "loras" / f"{name}.safetensors").touch()
    write('adapters_dir = "loras"')
    entries = open_library().entries
    assert {Path(entries[name].source).stem for name in ("a_b", "a_b-2", "a_b-3")} == {"a.b", "a_b", "a b"}


def test_the_variable_names_more_folders(here, adapters, monkeypatch):
    for folder, names in (("mine", ("ink", "a")), ("more", ("a", "b", "toy"))):
        (here / folder).mkdir()
        for name in names:
            (here / folder / f"{name}.safetensors").touch()
    write(f'adapters_dir = "{adapters}"')
    monkeypatch.setenv("LORAKIT_ADAPTERS", os.pathsep.join(["mine", "", str(here / "more")]))
    entries = open_library().entries
    # lorakit.toml's folders first, then in the order they are named; the embedded ones last.
    assert {name: entry.origin for name, entry in entries.items()} == {
        "ink": str(adapters),
        "wash": str(adapters),
        "a": f"{here}/mine (LORAKIT_ADAPTERS)",
        "a-2": f"{here}/more (LORAKIT_ADAPTERS)",
        "b": f"{here}/more (LORAKIT_ADAPTERS)",
        "toy": f"{here}/more (LORAKIT_ADAPTERS)",
        "pixel": "embedded",
    }
    assert entries["a"].source == str(here / "mine" / "a.safetensors")
    monkeypatch.setenv("LORAKIT_ADAPTERS", "nowhere")
    with pytest.raises(LibraryError, match=f"LORAKIT_ADAPTERS: {here}/nowhere is not a folder"):
        open_library()


def test_a_name_in_the_file_hides_the_embedded_one(here, adapters):
    write(f'[adapters.toy]\nsource = "{adapters}/ink.safetensors"\n')
    assert find("toy").path == adapters / "ink.safetensors"


def test_an_entry_may_name_another(here):
    write("[adapters.soft]\nsource = 'toy'\nweight = 0.4\n[adapters.softer]\nsource = 'soft'\ntriggers = 'face'\n")
    library = open_library()
    entry = library.find("softer")
    assert (entry.source, entry.weight, entry.triggers) == (library.entries["toy"].source, 0.4, ("face",))
    write("[adapters.a]\nsource = 'b'\n[adapters.b]\nsource = 'a'\n")
    with pytest.raises(LibraryError, match="leads back to itself"):
        open_library().find("a")
    write("[adapters.a]\nsource = 'toi'\n")
    with pytest.raises(UnknownAdapterError, match="no adapter is called 'toi'; did you mean toy"):
        open_library().find("a")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base = 3", "line 1: base: must be text, not 3"),
        ("\nbasis = 'x'", "line 2: basis: unknown key; did you mean base? Known: base, use, adapters_dir, adapters"),
        ("use = 'toy'", "line 1: use: must be a list of texts"),
        ("\n\nuse = ['toy:x']", "line 3: use: the weight 'x' of adapter 'toy:x' is not a finite number"),
        ("adapters_dir = [3]", "line 1: adapters_dir: must be a list of texts"),
        ("adapters = 3", "line 1: adapters: must be tables"),
        ("[adapters.a]", "line 1: adapters.a: has no source"),
        ("base='x'\n[adapters.a]\nsource='x'\n[adapters.b]\nsource = 3", "line 5: adapters.b.source: must be text"),
        ("[adapters.a]\nsource='x'\nweight='1'", "line 3: adapters.a.weight: must be a finite number"),
        ("[adapters.a]\nsource='x'\nweight=nan", "line 3: adapters.a.weight: must be a finite number"),
        ("[adapters.a]\nsource='x'\nwieght=1", "line 3: adapters.a.wieght: unknown key; did you mean weight?"),
        ("[adapters.a]\nsource='x'\n[adapters.\"b\"]\nsource = 3", "line 4: adapters.b.source: must be text"),
        ("[adapters.a]\nsource='x'\n[adapters]\nb = {source = 3}", "line 4: adapters.b.source: must be text"),
        ("[adapters.a]\nsource='x'\nweight=1" + "0" * 400, "line 3: adapters.a.weight: must be a finite number"),
        ("x = " + "[" * 5000, "nested too deeply"),
        ("[adapters.'a b']\nsource='x'", "an adapter's name has letters, digits, _ and - only"),
        ("[adapters]\na = 3", "line 2: adapters.a: must be a table with a source"),
        ("use = []\nbase = ", "line 2: Invalid value: base ="),
        ("base = 'x'\nuse = [toy]\n", "line 2: Invalid value: use = [toy]"),
        ("base = 'x'\nbase = 'y'\n", "line 2: Cannot overwrite a value: base = 'y'"),
    ],
)
def test_broken_files_are_errors_with_line_and_key(here, text, message):
    write(text)
    with pytest.raises(LibraryError) as caught:
        open_library()
    assert message in str(caught.value)
    assert str(here / "lorakit.toml") in str(caught.value)


def test_a_missing_folder_or_named_file(here, monkeypatch):
    write('adapters_dir = "nowhere"')
    with pytest.raises(LibraryError, match="nowhere is not a folder"):
        open_library()
    monkeypatch.setenv("LORAKIT_CONFIG", "missing.toml")
    with pytest.raises(LibraryError, match=r"LORAKIT_CONFIG names missing\.toml, which is not a file"):
        open_library()


def test_unknown_names_and_files(here, adapters):
    with pytest.raises(UnknownAdapterError, match="no adapter is called 'pixl'; did you mean pixel"):
        find("pixl")
    with pytest.raises(UnknownAdapterError, match=r"there is no adapter file .*/inc\.safetensors; did you mean ink"):
        find(f"{adapters}/inc.safetensors")
    with pytest.raises(UnknownAdapterError, match="there is no folder nowhere"):
        find("nowhere/a.safetensors")


def test_folders_of_adapters(here, adapters):
    with pytest.raises(
        UnknownAdapterError, match=r"several adapters, name one: .*/ink\.safetensors, .*/wash\.safetensors"
    ):
        find(f"{adapters}/")
    (here / "one").mkdir()
    with pytest.raises(UnknownAdapterError, match="holds no"):
        find("./one")
    (here / "one" / "any.safetensors").touch()
    assert find("./one").path == Path("one/any.safetensors")
    (here / "one" / "pytorch_lora_weights.safetensors").touch()
    assert find("./one").path == Path("one/pytorch_lora_weights.safetensors")


def test_what_is_not_on_this_machine():
    with pytest.raises(FetchError, match="is not in the cache, and HF_HUB_OFFLINE forbids the network"):
        find("hf:owner/repo")


@pytest.mark.parametrize("text", ["https://host/a.safetensors", "civitai:12"])
def test_what_is_on_the_web_and_not_in_the_cache(text, web_cache):
    with pytest.raises(DownloadError, match="is not in the cache, and HF_HUB_OFFLINE forbids the network"):
        find(text)
    with pytest.raises(UnknownAdapterError, match=f"{text} is not downloaded yet"):
        find_adapter(AdapterSpec.parse(text), open_library(), download=False)


def test_two_of_one_name(here):
    specs = [AdapterSpec.parse("toy"), AdapterSpec.parse("./toy.safetensors")]
    with pytest.raises(AdapterSpecError, match="two adapters are called 'toy'"):
        find_adapters(specs, open_library())


@pytest.mark.parametrize(
    ("text", "repo", "revision"),
    [
        ("owner/name", "owner/name", None),
        ("hf:owner/name", "owner/name", None),
        ("black-forest-labs/FLUX.1-dev@main", "black-forest-labs/FLUX.1-dev", "main"),
        ("hf:owner/name@refs/pr/3", "owner/name", "refs/pr/3"),
    ],
)
def test_a_base_on_the_hub(here, text, repo, revision):
    assert find_base(text, open_library(), []) == HubReference(repo, revision)
    write(f'base = "{text}"')
    assert find_base(None, open_library(), []) == HubReference(repo, revision)


def test_what_is_on_this_machine_wins_over_the_hub(here):
    assert find_base("owner/name", open_library(), []) == HubReference("owner/name")
    (here / "owner" / "name").mkdir(parents=True)
    assert find_base("owner/name", open_library(), []) == Path("owner/name")
    assert find_base("hf:owner/name", open_library(), []) == HubReference("owner/name")
    assert find_base("owner/name@main", open_library(), []) == HubReference("owner/name", "main")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models/sdxl.safetensors", "there is no base 'models/sdxl.safetensors'; did you mean sdxl-1.0.safetensors?"),
        ("models/sd1.ckpt", "there is no base 'models/sd1.ckpt'; give the path of a diffusers pipeline folder"),
        ("./models/nothing", "there is no base './models/nothing'; give the path"),
        ("a/b/c", "there is no base 'a/b/c'; give the path"),
        ("owner/name@", "there is no base 'owner/name@'; give the path"),
        ("https://huggingface.co/owner/name", "a Hub repository as owner/name"),
        ("hf:name", "'hf:name' names no Hub repository, which is written hf:owner/name or hf:owner/name@revision"),
        ("hf:", "'hf:' names no Hub repository"),
    ],
)
def test_no_base_at_all(here, text, message):
    write("", "models/sdxl-1.0.safetensors")
    with pytest.raises(BaseModelError) as caught:
        find_base(text, open_library(), [])
    assert message in str(caught.value)


def test_which_base(here, base, adapters):
    assert find_base(None, open_library(), []) == BASE
    assert find_base("demo", open_library(), []) == BASE
    (here / "demo").mkdir()
    assert find_base(None, open_library(), []) == find_base("demo", open_library(), []) == BASE
    assert find_base("./demo", open_library(), []) == Path("demo")
    assert find_base(str(base), open_library(), []) == base
    with pytest.raises(BaseModelError, match="there is no base 'nothing'; give the path"):
        find_base("nothing", open_library(), [])
    assert find_base(str(adapters / "ink.safetensors"), open_library(), []) == adapters / "ink.safetensors"
    write(
        f'[adapters.a]\nsource="x.safetensors"\nbase="{base}"\n[adapters.b]\nsource="y.safetensors"\nbase="./other"\n'
    )
    for name in ("x.safetensors", "y.safetensors"):
        (here / name).touch()
    library = open_library()
    a, b = find_adapters([AdapterSpec.parse("a"), AdapterSpec.parse("b")], library)
    assert find_base(None, library, [a]) == base
    with pytest.raises(BaseModelError, match="the adapters are for different bases"):
        find_base(None, library, [a, b])
    (here / "lorakit.toml").write_text(f'base = "{base}"')
    assert find_base(None, open_library(), []) == base
