"""Prompts with weights and of any length, on tiny pipelines of every family that can have them."""

import sys

import numpy
import pytest
import torch
from compel import CompelForFlux, CompelForSD, CompelForSDXL

from lorakit_cli.core.generation import Settings
from lorakit_cli.core.loading import Loading
from lorakit_cli.core.local_folder import read_base_index
from lorakit_cli.core.picture_spec import PictureSpec
from lorakit_cli.errors import UnsupportedError
from lorakit_cli.service.session import Session
from tests.originals import build
from tests.whole_flux import build_whole_flux

LONG = "a red heart, " * 30
ORACLES = {"sd1": CompelForSD, "sdxl": CompelForSDXL, "flux": CompelForFlux}


@pytest.fixture(scope="module", params=["sd1", "sdxl", "flux"])
def family(request):
    return request.param


@pytest.fixture(scope="module")
def session(family, tmp_path_factory):
    folder = tmp_path_factory.mktemp(family)
    (build_whole_flux() if family == "flux" else build(family)).save_pretrained(folder)
    return Session(read_base_index(folder), Loading())


def picture(session, prompt, negative=None, literal=None):
    size = 16 if type(session.pipeline).__name__ == "FluxPipeline" else 32
    spec = PictureSpec(prompt, negative, 1, Settings(size, size, 2, 4.0), literal)
    return numpy.asarray(session.draw(spec)).astype(int)


def embeddings(session, prompt, negative=None, literal=None):
    spec = PictureSpec(prompt, negative, 1, Settings(16, 16, 2, 4.0), literal)
    return session.prompts.call(spec, session.options(spec))


def test_a_plain_prompt_is_the_same_either_way(session):
    for negative in (None, "blue"):
        if negative and type(session.pipeline).__name__ == "FluxPipeline":
            continue
        literal = picture(session, "a red heart", negative, literal=True)
        assert abs(picture(session, "a red heart", negative, literal=False) - literal).max() <= 1
        assert abs(picture(session, "a (red:1.0) heart", negative) - literal).max() <= 1
    assert abs(picture(session, "a (red:3) heart") - literal).max() > 0


def test_weights_are_those_of_the_library_itself(session, family):
    oracle = ORACLES[family](session.pipeline)
    found = embeddings(session, "a (red:1.5) ((heart))")
    wanted = oracle("a (red)1.5 (heart)1.21")
    torch.testing.assert_close(found["prompt_embeds"], wanted.embeds)
    plain = embeddings(session, "a red heart", literal=False)["prompt_embeds"]
    assert not torch.allclose(found["prompt_embeds"], plain)
    if family != "sd1":
        pooled = oracle("a red heart").pooled_embeds
        torch.testing.assert_close(found["pooled_prompt_embeds"], pooled)


def test_signs_that_mean_something_to_the_library_alone_are_text(session):
    odd = 'a red+ heart-- ("a", "b").and() (blue:1.0)'
    plain = embeddings(
        session, odd.replace("(blue:1.0)", "blue").replace("(", r"\(").replace(")", r"\)"), literal=False
    )
    torch.testing.assert_close(
        embeddings(session, r'a red+ heart-- \("a", "b"\).and\(\) (blue:1.0)')["prompt_embeds"], plain["prompt_embeds"]
    )


def test_long_prompts_are_read_to_their_end(session, family):
    if family == "flux":
        return
    one, other = (embeddings(session, LONG + end, "blue") for end in ("red", "blue"))
    assert one["prompt_embeds"].shape[1] == one["negative_prompt_embeds"].shape[1] > 77
    assert not torch.equal(one["prompt_embeds"], other["prompt_embeds"])
    assert (picture(session, LONG + "red") >= 0).all()
    assert embeddings(session, "a red heart", LONG)["prompt_embeds"].shape[1] > 77
    assert not session.prompts.cuts


def test_what_is_cut_off_is_told(session, family, monkeypatch):
    session.prompts.cuts.clear()
    prompt = ("a red heart, " * 200 if family == "flux" else LONG) + "blue"
    assert embeddings(session, prompt, literal=True)["prompt"] == prompt
    (cut,) = session.prompts.cuts
    assert "its end is cut off: " in cut
    assert cut.endswith("blue'")
    session.prompts.cuts.clear()
    monkeypatch.setitem(sys.modules, "compel", None)
    embeddings(session, prompt)
    (cut,) = session.prompts.cuts
    assert cut.endswith("blue'" if family == "flux" else "; with pip install 'lorakit[compel]' all of it is read")
    with pytest.raises(UnsupportedError, match=r"pip install 'lorakit\[compel\]'"):
        embeddings(session, prompt, literal=False)
    session.prompts.cuts.clear()
