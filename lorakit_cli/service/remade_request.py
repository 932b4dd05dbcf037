"""A request for a picture that is there: made once more, but for what is asked for beside it."""

from collections.abc import Sequence
from dataclasses import replace

from lorakit_cli.service.default_adapters import Choice
from lorakit_cli.service.prompt_lines import PromptLine
from lorakit_cli.service.recalled_picture import Given, recall_picture
from lorakit_cli.service.request import Before, GenerateRequest
from lorakit_cli.sources.library import Library


def as_before(
    request: GenerateRequest, lines: Sequence[PromptLine], library: Library
) -> tuple[GenerateRequest, Before, tuple[str, ...], Choice | None]:
    """Fill a request from the picture that it names; what is given in it, `lines` of prompts included, wins.

    Gives also what is known of the picture, warnings, and its adapters where no others are to be chosen. Raises
    LorakitError.
    """
    assert request.again is not None
    tagged = [spec for line in lines for spec in line.tagged]
    given = Given(
        request.base,
        [*request.adapters, *tagged],
        request.settings,
        request.loading,
        request.changed,
        request.allow_pickle,
        request.variant,
    )
    found = recall_picture(request.again, given, library)
    scale = request.scale if request.scaled or request.scale != 1.0 else found.scale
    filled = replace(
        request,
        prompt=found.prompt if not lines else request.prompt,
        base=found.base,
        adapters=request.adapters if tagged else found.adapters,
        scale=scale,
        block_scales={**found.block_scales, **request.block_scales},
        negative=found.negative if request.negative is None else request.negative,
        settings=found.settings,
        loading=found.loading,
        variant=found.variant,
        seeds=request.seeds or ([] if found.seed is None else [str(found.seed)]),
        literal=found.literal if request.literal is None and not lines else request.literal,
    )
    before = Before(found.base_record, found.sources, found.before)
    # What it had it gets, and nothing that base or library would add.
    others = given.adapters and found.adapters == tuple(given.adapters)
    return filled, before, found.warnings, None if others else Choice(found.adapters, library, scale)
