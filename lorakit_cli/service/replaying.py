"""Ask once more for what a recipe says, with nothing but its place and the way to it free to choose."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lorakit_cli.errors import OptionError, RecipeError
from lorakit_cli.service.fuse_request import FuseRequest
from lorakit_cli.service.recalling import open_recipe, recall
from lorakit_cli.sources.library import open_library


def replay_request(path: Path, asked: FuseRequest, beside_it: Mapping[str, object] | None = None) -> FuseRequest:
    """Give the request that the recipe in `path` was made by, put where `asked` says and in the way it says.

    Of what is to be fused, `asked` only says where it is now. `beside_it` are options by their name, with what was
    given for them: OptionError for those that the recipe answers. Raises RecipeError for a base or an adapter that is
    not there or not what it was.
    """
    for option, value in (beside_it or {}).items():
        if value is not None:
            raise OptionError(f"{option} and --recipe: the recipe says that already; leave one of the two out")
    recipe, beside = open_recipe(path)
    if recipe.verb != "fuse":
        raise RecipeError(
            f"{path} was made by `lorakit {recipe.verb}`, which fuses nothing; `lorakit fuse --base {path}` does"
        )
    recalled = recall(
        recipe, beside, open_library(), base=asked.base, adapters=asked.adapters, allow_pickle=asked.allow_pickle
    )
    again = recalled.request(asked.out)
    return replace(
        again,
        max_shard_size=asked.max_shard_size,
        # On other devices sums come to other bits.
        device=recipe.arithmetic.get("device", asked.device) if asked.device == "auto" else asked.device,
        engine=recipe.engine if asked.engine == "auto" else asked.engine,
        check=asked.check,
        overwrite=asked.overwrite,
        allow_pickle=asked.allow_pickle,
        dry_run=asked.dry_run,
    )
