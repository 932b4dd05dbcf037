"""Stacks of numbered blocks, as transformers have them: `transformer_blocks.7.`, `layers.3.` and the like."""

from lorakit_cli.core.late import late

# What a text encoder wraps its layers in, under one name or another.
_WRAPPER = late(r"(?:(?:text_model|language_model|model|encoder|transformer)\.)+(?=.)")
_BLOCK = late(r"(\w+)\.(\d+)\.")


def unwrapped(component: str, module: str) -> str:
    """Give a module's name without what a text encoder wraps its layers in."""
    if not component.startswith("text_encoder"):
        return module
    wrapper = _WRAPPER.match(module)
    return module[wrapper.end() :] if wrapper else module


def stack_of(component: str, module: str) -> tuple[str, int] | None:
    """Give the stack that a module is in and the number of its block, None where it is in none.

    Only what stands at the top counts, and only blocks that have modules inside.
    """
    block = _BLOCK.match(unwrapped(component, module))
    return (block[1], int(block[2])) if block else None


def outside_name(component: str, module: str) -> str:
    """Give the first word of a module's name, which what is in no block goes by."""
    return unwrapped(component, module).partition(".")[0]
