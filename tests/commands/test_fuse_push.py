"""`lorakit fuse --push-to-hub`: the output is on the Hub afterwards, and stays here whatever the Hub says."""

import json

import pytest

from tests.fused import files, fused, specs

TOKEN = "hf_averysecrettoken"
MAY_NOT = "the token in use may not write to me/inked; log in with `hf auth login` with one that may"


@pytest.fixture
def account(hub, monkeypatch):
    """An account on the Hub that whoever runs the program is logged in to."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.accepting.tokens[TOKEN] = ("me", "write")
    return hub


def on_hub(hub, name):
    repository = hub.repositories[name]
    found = files(repository.commits[repository.revisions["main"]])
    found.pop(".gitattributes")
    return found


def test_the_repository_holds_just_the_output(lorakit, account, base, adapters, here):
    commit = account.add("someone/tiny", base)
    two = specs(adapters, "ink.safetensors:0.7", "wash.safetensors:-1")
    options = ("--base", "someone/tiny", *two, "--out", here / "out", "--push-to-hub", "me/inked")
    report = fused(lorakit, *options)
    assert on_hub(account, "me/inked") == files(here / "out")
    newest = account.repositories["me/inked"].revisions["main"]
    assert report["pushed"] == f"{account.url}/me/inked/commit/{newest}"
    (made,) = account.accepting.made
    assert made["visibility"] == "private"
    ((header, *_),) = account.accepting.commits
    assert header["value"]["summary"] == f"Fuse ink:0.7, wash:-1 into someone/tiny@{commit}"
    # The token goes to the Hub and not to where the weights are kept.
    assert {r.token for r in account.requests if r.host == "localhost"} == {None}
    # It is a base again.
    pushed = fused(
        lorakit, "--base", "me/inked", *specs(adapters, "ink.safetensors"), "--again", "--out", here / "next"
    )
    assert pushed["base"] == f"me/inked@{newest}"


def test_a_person_reads_where_it_is(lorakit, account, base, adapters, here):
    ink = specs(adapters, "ink.safetensors")
    done = lorakit("fuse", "--base", base, *ink, "--out", "out", "--push-to-hub", "inked", "--public")
    assert (done.exit_code, done.stderr) == (0, "")
    newest = account.repositories["me/inked"].revisions["main"]
    assert f"\n  pushed {account.url}/me/inked/commit/{newest}\n" in done.stdout
    assert account.accepting.made[0]["visibility"] == "public"
    ((header, *_),) = account.accepting.commits
    assert header["value"]["summary"] == "Fuse ink:1 into tiny-base"


def test_what_is_there_is_replaced_and_nothing_else(lorakit, account, base, adapters, here, tmp_path):
    ink = specs(adapters, "ink.safetensors")
    there = tmp_path / "there"
    (there / "unet").mkdir(parents=True)
    for name in ("notes.txt", "unet/notes.txt", "more.safetensors", ".gitattributes"):
        (there / name).write_text("kept")
    # Left in place, these would be loaded instead of the new ones.
    for name in (
        "unet/diffusion_pytorch_model.safetensors.index.json",
        "unet/diffusion_pytorch_model.fp16.safetensors",
    ):
        (there / name).write_text("stale")
    account.add("me/inked", there)
    fused(lorakit, "--base", base, *ink, "--out", here / "out", "--push-to-hub", "me/inked")
    kept = dict.fromkeys(("notes.txt", "unet/notes.txt", "more.safetensors"), b"kept")
    assert on_hub(account, "me/inked") == files(here / "out") | kept
    assert account.accepting.made == []
    assert len(account.accepting.commits) == 1


def test_a_single_file_goes_with_a_card(lorakit, account, checkpoint, adapters, here):
    ink = specs(adapters, "ink.safetensors")
    options = ("--base", checkpoint, *ink, "--out", here / "inked.safetensors", "--push-to-hub", "me/inked")
    fused(lorakit, *options)
    found = on_hub(account, "me/inked")
    card = found.pop("README.md").decode()
    assert found == files(here)
    assert "| ink | 1 |" in card
    assert 'StableDiffusionPipeline.from_single_file("path/to/inked.safetensors")' in card
    assert "the file's header says how" in card
    # A card that is there already says more than one file.
    fused(lorakit, *options[:-3], here / "second.safetensors", *options[-2:])
    assert on_hub(account, "me/inked").keys() == {"README.md", "inked.safetensors", "second.safetensors"}
    assert on_hub(account, "me/inked")["README.md"].decode() == card


def last_line(done, code=1):
    assert (done.exit_code, done.stdout) == (code, "")
    assert TOKEN not in done.stderr
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("mark", "status", "reason"),
    [
        ("/api/repos/create", 403, MAY_NOT),
        ("/preupload/", 401, "the Hub refuses the token in use; log in with `hf auth login` again"),
        ("/lfs/", 403, MAY_NOT),
        ("/commit/", 503, "the Hub is in trouble (HTTP 503); try again later"),
        ("/commit/", 413, "the Hub does not take it (HTTP 413)"),
    ],
)
def test_a_push_that_fails_keeps_the_output(lorakit, account, base, adapters, here, mark, status, reason):
    ink = specs(adapters, "ink.safetensors")
    account.refuse(mark, status)
    out = here / "my out"
    done = lorakit("fuse", "--base", base, *ink, "--out", out, "--push-to-hub", "me/inked")
    assert last_line(done) == (
        f"error: {out} is complete, but was not pushed to me/inked: {reason}; `hf upload me/inked '{out}' --private` "
        "does so later"
    )
    fused(lorakit, "--base", base, *ink, "--out", here / "other")
    ours, others = files(out), files(here / "other")
    for found in (ours, others):
        recipe = json.loads(found.pop("lorakit.json"))
        assert recipe["adapters"][0]["name"] == "ink"
    assert ours == others


def test_a_hub_that_goes_away_meanwhile_is_said(lorakit, account, base, adapters, here, monkeypatch):
    from huggingface_hub import constants

    from lorakit_cli.service import fusing

    fuse = fusing.fuse

    def cut_off(*arguments):
        report = fuse(*arguments)
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        return report

    monkeypatch.setattr(fusing, "fuse", cut_off)
    ink = specs(adapters, "ink.safetensors")
    done = lorakit("fuse", "--base", base, *ink, "--out", "out", "--push-to-hub", "me/inked", "--public")
    assert last_line(done) == (
        "error: out is complete, but was not pushed to me/inked: http://127.0.0.1:9 cannot be reached (ConnectError); "
        "check the connection; `hf upload me/inked out` does so later"
    )
    assert (here / "out" / "model_index.json").is_file()


def refused_before(lorakit, here, base, adapters, *options, code=1):
    done = lorakit("fuse", "--base", base, *specs(adapters, "ink.safetensors"), "--out", "out", *options)
    assert list(here.iterdir()) == []
    return last_line(done, code)


def test_what_cannot_be_pushed_is_not_fused(lorakit, hub, base, adapters, here, monkeypatch, offline):
    to = ("--push-to-hub", "me/inked")
    ask = (lorakit, here, base, adapters)
    assert refused_before(*ask, *to) == (
        "error: there is no token for the Hub; log in with `hf auth login`, or set HF_TOKEN"
    )
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert refused_before(*ask, *to) == "error: the Hub refuses the token in use; log in with `hf auth login` again"
    hub.accepting.tokens[TOKEN] = ("me", "read")
    assert refused_before(*ask, *to) == (
        "error: the token in use may only read; log in with `hf auth login` with one that may write"
    )
    for name in ("a/b/c", "me/in ked", "--"):
        assert refused_before(*ask, f"--push-to-hub={name}", code=2) == (
            f"error: --push-to-hub {name}: a repository on the Hub is written owner/name"
        )
    assert refused_before(*ask, "--public", code=2) == (
        "error: --public is for the repository that --push-to-hub makes"
    )
    offline()
    assert refused_before(*ask, *to) == "error: HF_HUB_OFFLINE forbids the network; unset it"
    assert hub.repositories == {}


def test_a_dry_run_asks_nobody(lorakit, hub, base, adapters, here):
    ink = specs(adapters, "ink.safetensors")
    done = lorakit("fuse", "--base", base, *ink, "--out", "out", "--push-to-hub", "me/inked", "--dry-run")
    assert done.stdout.endswith("would write out\nwould push to me/inked\n")
    assert hub.requests == []
