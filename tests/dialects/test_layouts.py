"""Plain LoRA in every layout, for every family that it is used with: all of it found, all of it exact."""

import pytest
import torch

from lorakit_cli.service.reading import open_adapter
from tests.dialects.judging import changes, cut, judge, pair, plan_of, product, require_equal, write
from tests.dialects.layouts import adapter, cases


@pytest.mark.parametrize(("layout", "name"), cases(), ids=lambda value: value if isinstance(value, str) else value.name)
def test_every_layer_changes_what_the_trainer_changed(family, tmp_path, layout, name):
    folder, parts = family(name)
    tensors, wanted = adapter(layout, name, parts)
    assert len(wanted) > 10
    file = judge(folder, write(tmp_path / "a.safetensors", tensors), wanted)
    assert layout.reads_as in ("", file.formats[0].name)


def numbered(feed_forward):
    """List a UNet's and a text encoder's modules in the order in which cloneofsimo's trainer counts them.

    Its diffusers declared the middle block last, its transformers the projections as key, value, query, output.
    """
    layers = [f"attn1.to_{part}" for part in ("q", "k", "v", "out.0")]
    layers += ["ff.net.0.proj"] * feed_forward + [f"attn2.to_{part}" for part in ("q", "k", "v", "out.0")]
    blocks = [f"down_blocks.{block}.attentions.{n}" for block in (0, 1, 2) for n in (0, 1)]
    blocks += [f"up_blocks.{block}.attentions.{n}" for block in (1, 2, 3) for n in (0, 1, 2)] + [
        "mid_block.attentions.0"
    ]
    unet = [f"{block}.transformer_blocks.0.{layer}" for block in blocks for layer in layers]
    text = [f"encoder.layers.{n}.self_attn.{part}_proj" for n in (0, 1) for part in ("k", "v", "q", "out")]
    return {"unet": unet, "text_encoder": text}


@pytest.mark.parametrize("feed_forward", [True, False])
@pytest.mark.parametrize("pickled", [False, True])
def test_the_numbered_pairs_of_cloneofsimo(family, tmp_path, feed_forward, pickled):
    folder, parts = family("sd1")
    torch.manual_seed(3)
    tensors, wanted, flat = {}, {}, []
    for component, modules in numbered(feed_forward).items():
        if pickled and component == "text_encoder":
            continue
        for number, module in enumerate(modules):
            down, up = pair(parts[component].get_submodule(module).weight.shape, 2)
            tensors |= {f"{component}:{number}:up": up, f"{component}:{number}:down": down}
            flat += [up, down]
            wanted |= cut(product(down, up, 1.0), (module,), False, component, parts[component])
    if not pickled:
        judge(folder, write(tmp_path / "a.safetensors", tensors), wanted)
        return
    torch.save(flat, tmp_path / "a.pt")
    plan = plan_of(folder, open_adapter(tmp_path / "a.pt", allow_pickle=True))
    assert plan.unmatched == ()
    require_equal(changes(plan), wanted)
