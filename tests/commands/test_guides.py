"""The examples of diffusers' guides to LoRA, each as its own code and as one command: the same latents.

Here those that load adapters, choose among them and weigh them; every family in turn.
"""

import json

import pytest
import torch

from tests.guides import PROMPT, SEED, apart, assert_same, draw, watched_latents


def scaled(guide, pipeline, scale):
    """Call a pipeline with the scale of its adapters, by the name that it has there."""
    key = "joint_attention_kwargs" if guide.family == "flux" else "cross_attention_kwargs"
    return draw(pipeline, **{key: {"scale": scale}})


def test_load_one_adapter_and_scale_it(guide, latents):
    pipeline = guide.pipeline("toy")
    assert_same(latents(guide.base, "-l", guide.toy), draw(pipeline), guide.bare)
    wanted = scaled(guide, pipeline, 0.9)
    assert_same(latents(guide.base, "-l", f"{guide.toy}:0.9"), wanted, guide.bare)
    # The same number for all adapters at once.
    assert_same(latents(guide.base, "-l", guide.toy, "--scale", 0.9), wanted, guide.bare)


def test_load_another_combine_the_two_and_go_back_to_one(guide, latents):
    pipeline = guide.pipeline("toy", "pixel")
    toy, pixel = ("-l", guide.toy), ("-l", guide.pixel)
    pipeline.set_adapters("pixel")
    assert_same(latents(guide.base, *pixel), draw(pipeline), guide.bare)
    pipeline.set_adapters(["pixel", "toy"], adapter_weights=[0.5, 1.0])
    both = draw(pipeline)
    assert_same(latents(guide.base, "-l", f"{guide.pixel}:0.5", "-l", f"{guide.toy}:1.0"), both, guide.bare)
    pipeline.set_adapters("toy")
    one = draw(pipeline)
    assert_same(latents(guide.base, *toy), one, guide.bare)
    assert apart(one, both) > 1e-3


def test_disable_enable_delete_and_unload(guide, latents):
    pipeline = guide.pipeline("toy", "pixel")
    pipeline.set_adapters(["toy", "pixel"])
    pipeline.disable_lora()
    assert apart(draw(pipeline), guide.bare) < 1e-6
    assert torch.equal(latents(guide.base), guide.bare)
    pipeline.enable_lora()
    assert_same(latents(guide.base, "-l", guide.toy, "-l", guide.pixel), draw(pipeline), guide.bare)
    pipeline.delete_adapters("toy")
    pipeline.set_adapters("pixel")
    assert_same(latents(guide.base, "-l", guide.pixel), draw(pipeline), guide.bare)
    pipeline.unload_lora_weights()
    assert apart(draw(pipeline), guide.bare) < 1e-6


def test_list_the_adapters_the_active_ones_and_what_each_changes(guide, lorakit):
    pipeline = guide.pipeline("toy", "pixel")
    given = ("-l", guide.toy, "-l", guide.pixel)
    report = json.loads(lorakit("list-adapters", "--json", "-b", guide.base, *given).stdout)
    found = {}
    for adapter in report["adapters"]:
        for component in adapter["touches"]:
            found.setdefault(component, []).append(adapter["name"])
    assert found == pipeline.get_list_adapters()
    pipeline.set_adapters(["pixel"])
    plan = json.loads(lorakit("generate", "-b", guide.base, "-l", guide.pixel, "--dry-run", "--json", PROMPT).stdout)
    assert [adapter["name"] for adapter in plan["plan"]["adapters"]] == pipeline.get_active_adapters()


def test_one_adapter_takes_the_place_of_another(guide, latents, here):
    """As hot-swapping does; that of diffusers leaves text encoders alone."""
    first, second = (guide.adapter(f"{n}", n, text=False) for n in (3, 4))
    pipeline = guide.pipeline("3")
    wanted = [draw(pipeline)]
    pipeline.load_lora_weights(guide.folder, weight_name="4.safetensors", adapter_name="3", hotswap=True)
    wanted.append(draw(pipeline))
    (here / "prompts.txt").write_text(f"{PROMPT} <lora:a={first}:1>\n{PROMPT} <lora:b={second}:1>\n")
    ours = latents(guide.base, "--prompt-file", "prompts.txt", prompt=None)
    # In which order is left to whoever draws.
    for one in wanted:
        assert sorted(apart(mine, one) < 2e-5 for mine in ours) == [False, True]
    assert apart(*wanted) > 1e-3


def test_lower_the_weight_in_the_prompt_as_web_uis_do(guide, latents):
    pipeline = guide.pipeline("toy")
    pipeline.set_adapters("toy", 0.5)
    seed = 3135098381
    drawn = latents(guide.base, prompt=f"{PROMPT} <lora:{guide.toy}:0.5>", seed=seed)
    assert_same(drawn, draw(pipeline, seed), draw(guide.pipeline(), seed))


def test_undo_a_fused_adapter_by_its_negative(guide, latents, lorakit):
    assert lorakit("fuse", "-b", guide.base, "-l", guide.toy, "-o", "fused", "-q").exit_code == 0
    assert apart(latents("fused"), guide.bare) > 1e-3
    assert apart(latents("fused", "-l", f"{guide.toy}:-1"), guide.bare) < 2e-5


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_pictures_side_by_side_with_and_without(guides, family, latents, lorakit, monkeypatch):
    guide = guides(family)
    pipeline = guide.pipeline("toy")
    sizes = ("--width", 16, "--height", 16, "--steps", 1, "--axis", f"seed={SEED}")
    with watched_latents(monkeypatch) as seen:
        done = lorakit("grid", "-b", guide.base, *sizes, "-l", guide.toy, "--axis", "toy=0,0.5,1", "-o", "out", PROMPT)
    assert done.exit_code == 0, done.stderr
    wanted = [guide.bare]
    for weight in (0.5, 1.0):
        pipeline.set_adapters("toy", weight)
        wanted.append(draw(pipeline))
    for one in wanted:
        assert min(apart(found, one) for found in seen) < 2e-5
    assert len(seen) == 3
