"""Where an output may not or cannot be written, said before any work."""

import os
import re
from pathlib import Path

import pytest

from lorakit_cli.core.hub_cache import hub_cache_around
from lorakit_cli.core.output_place import require_place
from lorakit_cli.errors import OutputError, OutputExistsError

BASE, ADAPTER = Path("base"), Path("adapter.safetensors")


@pytest.fixture(autouse=True)
def _sources(here):
    (here / "base" / "unet").mkdir(parents=True)
    (here / "base" / "unet" / "weights").touch()
    (here / "adapter.safetensors").touch()


def require(out, *, folder=True, overwrite=True, sources=(BASE, ADAPTER)):
    before = sorted(Path().rglob("*"))
    try:
        require_place(Path(out), sources, folder=folder, overwrite=overwrite)
    finally:
        assert sorted(Path().rglob("*")) == before


def refused(message, out, kind=OutputError, **options):
    with pytest.raises(kind, match=f"^{re.escape(message)}") as caught:
        require(out, **options)
    assert type(caught.value) is kind


@pytest.mark.parametrize("out", ["out", "new/deep/out", "base2", "./out", "basel/../out"])
@pytest.mark.parametrize("folder", [True, False])
def test_a_new_place(out, folder):
    require(out, folder=folder, overwrite=False)


def test_what_exists(here):
    (here / "folder").mkdir()
    (here / "file").touch()
    for name, folder in (("folder", True), ("file", False)):
        require(name, folder=folder)
        message = f"{name} exists already; choose another name or add --overwrite"
        refused(message, name, OutputExistsError, folder=folder, overwrite=False)
    for overwrite in (True, False):
        message = "folder is a folder, and a file is to be written; choose another name"
        refused(message, "folder", folder=False, overwrite=overwrite)
        message = "file is not a folder, and a folder is to be written; choose another name"
        refused(message, "file", folder=True, overwrite=overwrite)
    refused("cannot write file/x/out: ", "file/x/out")


@pytest.mark.parametrize("name", ["", ".", "..", "/", "base/..", "\0"])
def test_no_name(name):
    with pytest.raises(OutputError, match="is no name for an output; name something new inside it"):
        require_place(Path(name), [], folder=True, overwrite=True)


@pytest.mark.parametrize("overwrite", [True, False])
def test_what_is_read_what_is_in_it_and_what_it_is_in(here, overwrite):
    (here / "in").symlink_to("base")
    options = {"overwrite": overwrite}
    refused("base is base, which is read; choose another place", "base", **options)
    refused("base/../base is base, which is read", "base/../base", **options)
    refused("base/out lies in base, which is read; choose a place outside it", "base/out", **options)
    refused("base/new/out lies in base, which is read", "base/new/out", **options)
    refused("in/out lies in base, which is read", "in/out", **options)
    refused(f"{here} holds base, which is read; choose another place", here, **options)
    refused("base/unet lies in base", "base/unet", **options)
    refused("adapter.safetensors is adapter.safetensors, which is read", "adapter.safetensors", folder=False, **options)
    refused(
        "base holds base/unet/weights, which is read", "base", sources=[Path("gone"), BASE / "unet/weights"], **options
    )


def test_other_names_of_what_is_read(here):
    os.link("adapter.safetensors", "hard.safetensors")
    refused("hard.safetensors is adapter.safetensors, which is read", "hard.safetensors", folder=False)
    (here / "link").symlink_to("base")
    refused("base is link, which is read", "base", sources=[Path("link")])
    refused("base/out lies in link, which is read", "base/out", sources=[Path("link")])
    # The link itself would be lost.
    (here / "out").mkdir()
    (here / "out" / "link").symlink_to(here / "base")
    refused("out holds out/link, which is read", "out", sources=[Path("out/link")])
    (here / "out" / "model_index.json").touch()
    require("out", sources=[Path("out/../base")])
    (here / "docs").mkdir()
    (here / "docs" / "thesis.txt").touch()
    refused("docs holds other things than a pipeline or adapters, and is not replaced; name a new folder", "docs")
    (here / "docs" / "lorakit.json").touch()
    (here / "docs" / "inside").mkdir()
    os.chdir("docs/inside")
    refused("../../docs holds the folder you are in, and is not replaced; name a new one", "../../docs", sources=[])


def test_a_file_system_that_ignores_case(here):
    if not (here / "BASE").exists():
        pytest.skip("this one does not")
    refused("BASE is base, which is read", "BASE")
    refused("BASE/out lies in base, which is read", "BASE/out")


@pytest.mark.parametrize("target", ["folder", "nowhere", "base", "link"])
@pytest.mark.parametrize("folder", [True, False])
@pytest.mark.parametrize("overwrite", [True, False])
def test_links(here, target, folder, overwrite):
    (here / "folder").mkdir()
    (here / "link").symlink_to(target)
    message = f"link is a link to {target}, and is neither followed nor replaced; name the place itself, or another one"
    refused(message, "link", folder=folder, overwrite=overwrite)
    if target == "link":
        with pytest.raises(OutputError, match="cannot write link/out: "):
            require("link/out")
    if target == "nowhere":
        refused(f"cannot write link/out: {here / 'link'} is not a folder", "link/out")


def test_a_cache_of_the_hub_known_by_its_layout(here):
    snapshot = here / "hub" / "models--owner--name" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (here / "datasets--mine").mkdir()
    cache = here / "hub" / "models--owner--name"
    message = f"lies in the Hub's cache, {cache}, whose files are shared; choose a place outside it"
    for out in (snapshot, snapshot / "out", cache, cache / "new" / "out"):
        refused(f"{out} {message}", out)
    (here / "link").symlink_to(snapshot)
    refused(f"link/out {message}", "link/out")
    require(here / "hub" / "out")
    require("models--new")
    require("datasets--mine/out")


@pytest.mark.parametrize(
    ("variable", "value", "out"),
    [
        ("HF_HUB_CACHE", "cache", "cache/out"),
        ("HF_HUB_CACHE", "$THERE/cache", "cache/out"),
        ("HUGGINGFACE_HUB_CACHE", "cache", "cache"),
        ("HF_HOME", "home", "home/hub/new/out"),
        ("XDG_CACHE_HOME", "xdg", "xdg/huggingface/hub/out"),
        ("HOME", "user", "user/.cache/huggingface/hub/out"),
    ],
)
def test_a_cache_of_the_hub_known_by_its_settings(here, monkeypatch, variable, value, out):
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("THERE", str(here))
    monkeypatch.setenv(variable, value if "$" in value else str(here / value))
    refused(f"{out} lies in the Hub's cache, ", out)
    require("home/out" if variable == "HF_HOME" else "out")


def test_a_user_without_a_home(here, monkeypatch):
    def none(_path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", none)
    assert hub_cache_around(here / "out") is None


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_without_permission(here):
    (here / "locked").mkdir(mode=0o500)
    refused(f"cannot write locked/out: {here / 'locked'} takes no new files (Permission denied); cho", "locked/out")
    refused(f"cannot write locked/new/out: {here / 'locked'} takes no new files", "locked/new/out")


def test_a_disk_that_takes_nothing(sealed_disk):
    for out in (sealed_disk / "out", sealed_disk / "new" / "out"):
        refused(f"cannot write {out}: {sealed_disk} takes no new files (Read-only file system); choose another pl", out)


def test_where_a_disk_is_mounted(small_disk):
    refused(f"{small_disk} is where a disk is mounted, and cannot be replaced; name a folder inside it", small_disk)
    require(small_disk / "out")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe(here):
    os.mkfifo("pipe")
    refused("pipe is no ordinary file; choose another name", "pipe", folder=False)
