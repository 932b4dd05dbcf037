"""The embedded model, measured on a few prompts; `lorakit_cli/demo/README.md` has the figures over many."""

from pathlib import Path

import pytest
import torch

from lorakit_cli.demo import ADAPTERS, BASE
from lorakit_cli.demo.training.evaluate import FIRST_SEED, Studio, prompt_of, scenes_and_seeds, score
from lorakit_cli.demo.training.judge import cell_variance, load
from tests.exact_weights import assert_rounded_once, exact_weights
from tests.service.test_applying import state

JUDGE = Path(__file__).parent.parent / "data" / "judge.safetensors"
COUNT = 24


@pytest.fixture(scope="module")
def studio():
    return Studio()


@pytest.fixture(scope="module")
def judge():
    return load(JUDGE)


@pytest.fixture(scope="module")
def chosen():
    return scenes_and_seeds(COUNT)


def draw(studio, chosen, specs, triggers):
    prompts = [prompt_of(scene, triggers) for scene, _ in chosen]
    return studio.draw(specs, prompts, [seed for _, seed in chosen])


@pytest.fixture(scope="module")
def plain(studio, chosen):
    return draw(studio, chosen, [], [])


def test_it_draws_what_it_is_told(plain, judge, chosen):
    assert min(seed for _, seed in chosen) >= FIRST_SEED
    result = score(judge, plain, [scene for scene, _ in chosen])
    assert result.bg >= 0.95
    assert result.fg >= 0.9
    assert result.shape >= 0.8
    assert result.face == result.cells == 0


def test_toy_puts_a_face_on(studio, judge, chosen):
    result = score(judge, draw(studio, chosen, ["toy:1"], ["toy"]), [scene for scene, _ in chosen])
    assert result.face >= 0.8
    assert result.bg >= 0.9


def test_pixel_flattens_cells_the_more_the_higher_its_weight(studio, plain, judge, chosen):
    variances = [float(cell_variance(plain).mean())]
    for weight in (0.25, 0.5, 1.0):
        pictures = draw(studio, chosen, [f"pixel:{weight}"], ["pixel"])
        variances.append(float(cell_variance(pictures).mean()))
    assert variances == sorted(variances, reverse=True)
    assert variances[-1] <= variances[0] / 3
    assert score(judge, pictures, [scene for scene, _ in chosen]).cells >= 0.9


@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_both_show_together(studio, judge, chosen, weight):
    pictures = draw(studio, chosen, ["toy:1", f"pixel:{weight}"], ["toy", "pixel"])
    result = score(judge, pictures, [scene for scene, _ in chosen])
    assert result.face >= 0.7
    assert result.cells >= 0.7


def test_trigger_words_alone_do_nothing(studio, judge, chosen):
    result = score(judge, draw(studio, chosen, [], ["toy", "pixel"]), [scene for scene, _ in chosen])
    assert result.face == result.cells == 0


def test_every_fused_tensor_equals_the_fp64_sum(studio):
    from lorakit_cli.core.adapter_spec import AdapterSpec
    from lorakit_cli.service.planning import make_plan

    plan = make_plan("demo", [AdapterSpec.parse("toy:1.0"), AdapterSpec.parse("pixel:0.5")]).plan
    assert plan.unmatched == ()
    studio.weights.apply(plan)
    exact = exact_weights(BASE, [(ADAPTERS["toy"][0], 1.0), (ADAPTERS["pixel"][0], 0.5)])
    assert_rounded_once(state(studio.pipeline), exact, torch.float32)


def test_plain_diffusers_loads_base_and_adapters(studio, chosen):
    """The data is what it says: any program that knows diffusers can use it."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(BASE)
    pipeline.set_progress_bar_config(disable=True)
    for name, (path, _) in ADAPTERS.items():
        pipeline.load_lora_weights(path.parent, weight_name=path.name, adapter_name=name)
    pipeline.set_adapters(["toy", "pixel"], adapter_weights=[1.0, 0.5])
    scene, seed = chosen[0]
    prompt = prompt_of(scene, ["toy", "pixel"])
    made = pipeline(
        prompt,
        generator=torch.Generator().manual_seed(seed),
        num_inference_steps=studio.settings.steps,
        guidance_scale=studio.settings.guidance,
        output_type="np",
    ).images
    ours = studio.draw(["toy:1", "pixel:0.5"], [prompt], [seed])
    theirs = torch.from_numpy(made).permute(0, 3, 1, 2) * 2 - 1
    assert (ours - theirs).abs().max() < 0.05


def test_per_block_scales_equal_those_of_diffusers(studio):
    """The example of the diffusers guide acts on this model, and means the same there and here."""
    from diffusers import StableDiffusionPipeline

    from lorakit_cli.core.adapter_spec import AdapterSpec
    from lorakit_cli.core.block_scales import parse_block_scales
    from lorakit_cli.service.planning import make_plan

    scales = {"unet": {"down": 0.9, "up": {"block_0": 0.6, "block_1": [0.4, 0.8, 1.0]}}}
    pipeline = StableDiffusionPipeline.from_pretrained(BASE)
    path, _ = ADAPTERS["pixel"]
    pipeline.load_lora_weights(path.parent, weight_name=path.name, adapter_name="pixel")
    pipeline.set_adapters(["pixel"], adapter_weights=[scales])
    block_scales = parse_block_scales(
        ['pixel={"unet": {"down": 0.9, "up": {"block_0": 0.6, "block_1": [0.4, 0.8, 1.0]}}}']
    )
    studio.weights.apply(make_plan("demo", [AdapterSpec.parse("pixel")], block_scales=block_scales).plan)
    fused = dict(studio.pipeline.unet.named_parameters())
    compared = 0
    for name, layer in pipeline.unet.named_modules():
        if hasattr(layer, "get_delta_weight"):
            merged = layer.base_layer.weight + layer.get_delta_weight("pixel")
            assert torch.allclose(merged, fused[f"{name}.weight"], atol=1e-5), name
            compared += 1
    assert compared > 100
