"""How far merging, resizing and looking for what adapters have in common are: from nothing to all layers."""

import pytest

from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.core.merge_method import merge_settings
from lorakit_cli.core.rank_rule import RankRule
from lorakit_cli.service.merge_request import MergeRequest, prepare_merge
from lorakit_cli.service.merging import merge
from lorakit_cli.service.overlap import analyze
from lorakit_cli.service.resizing import ResizeRequest, resize


@pytest.fixture
def seen():
    """All that a bar was told."""
    return []


def require_whole(seen, total):
    done = [done for done, _ in seen]
    assert {given for _, given in seen} == {total}
    assert done == sorted(set(done))
    assert done[-1] == total


@pytest.mark.parametrize(
    ("method", "rule", "rounds"),
    [("cat", {}, 1), ("svd", {"rank": 2}, 1), ("svd", {"size": 150_000}, 2), ("ties_svd", {"rank": 2}, 1)],
)
def test_merge(base, adapters, here, seen, method, rule, rounds):
    specs = [AdapterSpec.parse(f"{adapters}/{name}.safetensors") for name in ("ink", "wash")]
    density = 0.5 if method == "ties_svd" else None
    settings = merge_settings(method, reduces=bool(rule), density=density, majority_sign=None, seed=None)
    request = MergeRequest(specs, here / "out.safetensors", settings, RankRule(**rule), {}, base=str(base))
    prepared = prepare_merge(request)
    merge(prepared, lambda *told: seen.append(told))
    require_whole(seen, 188 * rounds)
    seen.clear()
    analyze(prepared, lambda *told: seen.append(told))
    require_whole(seen, 188)


@pytest.mark.parametrize(("rule", "rounds"), [({"energy": 0.5}, 1), ({"size": 150_000}, 2)])
def test_resize(base, adapters, here, seen, rule, rounds):
    request = ResizeRequest(
        str(adapters / "ink.safetensors"), here / "out.safetensors", RankRule(**rule), base=str(base)
    )
    resize(request, lambda *told: seen.append(told))
    require_whole(seen, 188 * rounds)
