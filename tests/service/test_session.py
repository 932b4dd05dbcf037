"""A session that changes its adapters: attached, offloaded or compiled, it equals a fresh one."""

import os

import pytest
import torch

from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.core.generation import Settings
from lorakit_cli.core.loading import Loading
from lorakit_cli.core.picture_spec import PictureSpec
from lorakit_cli.errors import UnsupportedError
from lorakit_cli.service import session as sessions
from lorakit_cli.service.offloading import disable_offload, enable_offload
from lorakit_cli.service.planning import make_plan
from lorakit_cli.service.session import Session

CPU = torch.device("cpu")
SPEC = PictureSpec("a red heart", None, 3, Settings(16, 16, 2, 4.0))
PLANS = (["ink.safetensors:0.6", "wash.safetensors:0.8"], [], ["wash.safetensors:-1"])


@pytest.fixture(scope="module")
def plans(base, adapters):
    """Plans with both adapters, none, and one."""
    return [make_plan(str(base), [AdapterSpec.parse(f"{adapters}/{spec}") for spec in specs]).plan for specs in PLANS]


@pytest.fixture(scope="module")
def fresh(plans):
    """The pictures of the plans, each from a session of its own."""
    return [drawn(Session(plan.base, Loading()), plan) for plan in plans]


def drawn(session, plan):
    session.put_in(plan)
    return session.values(SPEC)


def test_attached_plans_replace_one_another(plans, fresh):
    session = Session(plans[0].base, Loading(attach=True))
    first = drawn(session, plans[0])
    assert torch.allclose(first, fresh[0], atol=1e-4)
    assert torch.allclose(drawn(session, plans[2]), fresh[2], atol=1e-4)
    assert torch.equal(drawn(session, plans[1]), fresh[1])
    assert not torch.allclose(fresh[0], fresh[1], atol=1e-2)


@pytest.mark.parametrize("how", ["model", "group"])
def test_offloaded_weights_are_changed_in_place(plans, fresh, how):
    session = Session(plans[0].base, Loading())
    # With a GPU this is what --offload does; here the CPU stands for it.
    session.put_in(plans[0])
    enable_offload(session.pipeline, how, CPU)
    for plan, expected in zip((*plans, plans[0]), (*fresh, fresh[0]), strict=True):
        assert torch.equal(drawn(session, plan), expected)


def test_what_is_attached_can_be_offloaded_and_changed(plans, fresh):
    session = Session(plans[0].base, Loading(attach=True))
    for number, how in ((2, "group"), (1, "model")):
        session.put_in(plans[number])
        enable_offload(session.pipeline, how, CPU)
        assert torch.allclose(session.values(SPEC), fresh[number], atol=1e-4)
        disable_offload(session.pipeline, how)


@pytest.mark.skipif("LORAKIT_SLOW_TESTS" not in os.environ, reason="takes a minute; LORAKIT_SLOW_TESTS=1 runs it")
def test_one_denoiser_is_compiled_once_whatever_the_weights(plans, fresh, monkeypatch):
    counters = torch._dynamo.utils.counters
    counters.clear()
    # Tracing is what changed weights might cause again; generating code takes the time.
    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compile_module(module, backend="eager"))
    session = Session(plans[0].base, Loading(compiled=True))
    assert torch.allclose(drawn(session, plans[0]), fresh[0], atol=1e-5)
    once = counters["stats"]["unique_graphs"]
    assert once >= 1
    for plan, expected in zip(plans[1:], fresh[1:], strict=True):
        assert torch.allclose(drawn(session, plan), expected, atol=1e-5)
    assert counters["stats"]["unique_graphs"] == once


def test_an_adapter_for_what_was_replaced_is_refused(plans, base, monkeypatch):
    session = Session(plans[0].base, Loading(vae=str(base / "vae")))
    session._replaced = {"unet"}
    with pytest.raises(UnsupportedError, match="an adapter changes the unet, which --unet replaces"):
        session.put_in(plans[0])


@pytest.mark.cuda
@pytest.mark.parametrize("how", ["model", "sequential", "group"])
def test_offloaded_from_cuda(plans, how):
    whole = Session(plans[0].base, Loading(device="cuda"))
    session = Session(plans[0].base, Loading(device="cuda", offload=how))
    for plan in (*plans, plans[0]):
        assert torch.allclose(drawn(session, plan).cpu(), drawn(whole, plan).cpu(), atol=2e-2)
    assert sessions.choose_device("cuda").type == session.device.type
