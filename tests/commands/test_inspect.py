"""`lorakit inspect` on one usable file: what it says, in text and as JSON, and what it does not read."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.commands.conftest import names
from tests.inspected import FIELDS, kohya
from tests.kohya_metadata import KOHYA
from tests.sparse import write_sparse
from tests.tiny import rewrite, save_adapter

KEYS = Path(__file__).parent.parent / "data" / "keys"
TEXT_LAYERS, UNET_LAYERS = 8, 180
A_LAYER = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """A LoRA of SDXL as kohya names it, all 986 layers, at rank 144: a gigabyte that takes no room."""
    listed = json.loads((KEYS / "kohya_sdxl.json").read_text())
    shapes = {
        name: (dtype, tuple(144 if size == 8 else size for size in shape))
        for name, (dtype, shape) in listed["tensors"].items()
    }
    path = tmp_path_factory.mktemp("big") / "big.safetensors"
    return write_sparse(path, shapes, listed["metadata"], alpha=72.0)


def test_what_a_file_is(look, base, adapters):
    path = adapters / "ink.safetensors"
    code, report = look(path, "--base", base)
    assert (code, report.keys(), report["schema"]) == (0, FIELDS, "lorakit/inspect/1")
    assert (report["path"], report["usable"], report["verdict"]) == (str(path), True, "usable")
    assert (report["dialect"], report["algorithms"]) == ("diffusers", {"lora": 188})
    assert (report["layers"], report["components"]) == (188, {"unet": UNET_LAYERS, "text_encoder": TEXT_LAYERS})
    assert report["ranks"] == [{"value": 4, "layers": 188}]
    assert (report["dtypes"], report["size"]) == ({"F32": 376}, path.stat().st_size)
    assert (report["unknown_keys"], report["problems"], report["keys"]) == ([], [], None)
    (match,) = report["match"]
    assert match.keys() == {
        "base", "architecture", "fits", "verdict", "matched", "total", "needs_base", "components", "unmatched"
    }  # fmt: skip
    assert (match["base"], match["fits"], match["matched"], match["total"]) == (str(base), True, 188, 188)
    assert (match["verdict"], match["unmatched"], match["needs_base"]) == ("all 188 layers fit", [], 0)


def test_the_model_of_a_full_size_file_is_recognised_by_its_shapes(look, big):
    assert big.stat().st_size > 1e9
    code, report = look(big)
    assert (code, report["architecture"], report["confidence"]) == (0, "SDXL", "certain")
    assert report["components"] == {"unet": 722, "text_encoder_2": 192, "text_encoder": 72}
    assert "Illustrious XL" in report["candidates"]
    assert report["ranks"] == [{"value": 144, "layers": 986}]
    assert report["scales"] == [{"value": 0.5, "layers": 986}]
    assert report["stated_architectures"] == [
        {"source": "ss_base_model_version", "text": "sdxl_base_v1-0", "family": "SDXL"}
    ]


READS = """
import sys
from lorakit_cli.app import app
try:
    app(sys.argv[1:])
except SystemExit as end:
    assert end.code == 0
fields = dict(line.split(": ") for line in open("/proc/self/io").read().splitlines())
print(fields["rchar"], file=sys.stderr)
"""


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs a system that counts the bytes a process reads")
def test_no_tensor_is_read(big):
    """The second of two runs, so that modules are compiled: all it reads is far less than the layers' values."""
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", READS, "inspect", big], capture_output=True, text=True, check=True)
    header = int.from_bytes(big.open("rb").read(8), "little")
    read = int(done.stderr)
    plain = subprocess.run([sys.executable, "-c", READS, "inspect", "toy"], capture_output=True, text=True, check=True)
    # Beside the header, two bytes for each alpha; the tables of the models it may be for are a few hundred kB.
    assert read - int(plain.stderr) < header + 986 * 2 + 1_000_000
    assert read < 0.02 * big.stat().st_size


def test_text_says_the_same(lorakit, base, adapters):
    lines = lorakit("inspect", adapters / "ink.safetensors", "--base", base).stdout.splitlines()
    assert lines[0] == str(adapters / "ink.safetensors")
    shown = {line.split()[0]: line for line in lines[1:]}
    assert shown["layout"].split()[1:] == ["diffusers"]
    assert shown["layers"].split(None, 1)[1] == "188: unet 180, text_encoder 8"
    assert shown["rank"].split()[1:] == ["4"]
    assert "fits: all 188 layers fit" in "\n".join(lines)


def test_mixed_ranks_and_alphas_are_counted(look, lorakit):
    code, report = look("toy")
    assert code == 0
    assert report["ranks"] == [{"value": 8, "layers": 44}, {"value": 12, "layers": 132}]
    assert "rank       8 ×44, 12 ×132" in lorakit("inspect", "toy").stdout


def test_every_key_is_listed(look, lorakit, adapters):
    path = adapters / "ink.safetensors"
    _, report = look(path, "--keys")
    tensors = load_file(path)
    assert [key["key"] for key in report["keys"]] == list(json_header(path))
    assert {key["key"]: tuple(key["shape"]) for key in report["keys"]} == {
        k: tuple(v.shape) for k, v in tensors.items()
    }
    places = {key["key"]: (key["layer"], key["role"], key["dtype"]) for key in report["keys"]}
    assert places[f"{A_LAYER}.lora_A.weight"] == (A_LAYER, "down", "F32")
    assert f"  {A_LAYER}.lora_B.weight F32 [16, 4]: {A_LAYER} (up)" in lorakit("inspect", path, "--keys").stdout


def json_header(path):
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    header.pop("__metadata__", None)
    return header


def test_what_metadata_and_files_beside_it_state(look, lorakit, here):
    path = kohya(here / "a.safetensors", KOHYA | {"modelspec.merged_from": "one, two", "sshs_model_hash": "0" * 64})
    (here / "a.civitai.info").write_text(json.dumps({"trainedWords": ["civ word"]}))
    code, report = look(path)
    assert code == 0
    assert report["triggers"] == ["civ word"]
    sources = {word["text"]: (word["source"], word["guessed"]) for word in report["triggers_detail"]["words"]}
    assert sources["civ word"] == (".civitai.info trainedWords", False)
    assert sources["ohwx man"] == ("ss_tag_frequency", True)
    assert report["beside"] == [".civitai.info"]
    assert report["training"]["software"] == "kohya sd-scripts"
    assert report["merge_history"]["merged_from"] == ["one", "two"]
    stated = {stated["key"]: (stated["text"], stated["matches"]) for stated in report["hashes"]["stated"]}
    assert stated["sshs_model_hash"] == ("0" * 64, None)
    assert report["hashes"]["sha256"] is None
    text = lorakit("inspect", path).stdout
    assert "  triggers   civ word (.civitai.info trainedWords)\n" in text
    assert "  may listen ohwx man, close-up (ss_tag_frequency)\n" in text
    assert "merged from" in text


def test_a_contradiction_between_what_is_stated_and_the_shapes(look, here):
    path = kohya(here / "a.safetensors", {"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"})
    code, report = look(path)
    assert (code, report["architecture"]) == (0, "SD1.x")
    (problem,) = [text for text in report["problems"] if "modelspec.architecture" in text]
    assert "which is SDXL, but its shapes are those of SD1.x" in problem


def test_the_audit_of_alphas(look, here):
    path = kohya(here / "a.safetensors", **{"v.alpha": torch.tensor(4.0)})
    code, report = look(path)
    assert code == 0
    assert any(text.startswith("diffusers gives 1 layers another scale than their own") for text in report["problems"])


def test_alpha_0_is_a_problem_but_no_obstacle(look, here):
    path = kohya(here / "a.safetensors", **{"k.alpha": torch.tensor(0.0)})
    code, report = look(path)
    assert code == 0
    assert any(text.startswith("1 layers have alpha 0 and so no effect") for text in report["problems"])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("toy", "--plot", "toy.jpg"), 2, "pictures are written as .png; name it toy.png"),
        (("toy", "pixel", "--plot", "two.png"), 2, "--plot draws one adapter, and there are 2; name one"),
        (("toy", "--plot", "nowhere/toy.png"), 1, "nowhere is not a folder"),
        (("toy", "--base", "nowhere"), 1, "there is no base 'nowhere'"),
        (("tyo",), 1, "no adapter is called 'tyo'; did you mean toy?"),
        (("gone.safetensors",), 1, "there is no adapter file gone.safetensors"),
    ],
)
def test_requests_that_cannot_be_met(lorakit, here, arguments, code, message):
    result = lorakit("inspect", *arguments)
    assert (result.exit_code, result.stdout, names(here)) == (code, "", [])
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_a_base_that_does_not_fit(look, lorakit, base, tmp_path):
    path = save_adapter(tmp_path / "other.safetensors", seed=1, width=96, targets=["attn2.to_k"], text=False)
    code, report = look(path, "--base", base)
    (match,) = report["match"]
    assert (code, report["usable"], match["fits"], match["matched"]) == (1, False, False, 0)
    assert "this adapter is for lorakit demo (attn2 input 96); the base is another UNet (32)" in match["verdict"]
    result = lorakit("inspect", path, "--base", base)
    assert "does not fit: this adapter is for lorakit demo" in result.stdout
    assert result.stderr.startswith(f"error: {path}: it does not fit {base}: this adapter is for lorakit demo")


def test_it_has_to_fit_every_base(look, base, adapters):
    code, report = look(adapters / "ink.safetensors", "--base", base, "--base", "demo")
    assert code == 1
    assert [match["fits"] for match in report["match"]] == [True, False]


def test_layers_that_need_the_base_are_counted(look, lorakit, base, adapters, tmp_path):
    def with_magnitudes(tensors):
        ups = {key: value for key, value in tensors.items() if key.endswith("to_q.lora_B.weight")}
        return tensors | {key.replace("lora_B.weight", "dora_scale"): torch.ones(len(up), 1) for key, up in ups.items()}

    path = rewrite(adapters / "wash.safetensors", tmp_path / "dora.safetensors", with_magnitudes)
    code, report = look(path, "--base", base)
    (match,) = report["match"]
    count = report["algorithms"]["dora"]
    assert (code, match["needs_base"]) == (0, count)
    assert (
        f"what {count} of them change depends on the base's own values" in lorakit("inspect", path, "-b", base).stdout
    )
