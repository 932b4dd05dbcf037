"""Show what block scales came out at: a tree on a terminal, aligned text elsewhere."""

import sys
from collections.abc import Sequence
from itertools import groupby

from lorakit_cli.commands._output import printable, table
from lorakit_cli.core.resolved_scales import ResolvedScale

_TITLE = "block scales"


def block_lines(rows: Sequence[ResolvedScale]) -> list[str]:
    """Write the resolved scales of an adapter as lines, none where it has none."""
    if not rows:
        return []
    drawn = _drawn(rows) if sys.stdout is not None and sys.stdout.isatty() else _plain(rows)
    return [f"  {line}" for line in drawn]


def _plain(rows: Sequence[ResolvedScale]) -> list[str]:
    cells = [[f"{row.component} {row.group or ''} {_block(row)}".replace("  ", " "), *_facts(row)] for row in rows]
    return [_TITLE, *(f"  {line}" for line in table(cells))]


def _drawn(rows: Sequence[ResolvedScale]) -> list[str]:
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

    tree = Tree(_TITLE)
    for component, own in groupby(rows, lambda row: row.component):
        node = tree.add(Text(printable(component), "bold"))
        for group, parts in groupby(own, lambda row: row.group):
            listed = list(parts)
            branch = node.add(Text(printable(group))) if group and _block(listed[0]) else node
            cells = [[_block(row) or row.group or "all of it", *_facts(row)] for row in listed]
            for row, line in zip(listed, table(cells), strict=True):
                branch.add(Text(line, "" if row.layers else "dim"))
    console = Console(highlight=False)
    with console.capture() as capture:
        console.print(tree)
    return capture.get().splitlines()


def _block(row: ResolvedScale) -> str:
    """Give what a block or run of blocks is called in its group."""
    return row.place.removeprefix(f"{row.component}.{row.group}").lstrip(".") if row.group else ""


def _facts(row: ResolvedScale) -> list[str]:
    scale = f"{row.scale:g}"
    if row.strength is None:
        return [scale, "no layer of it here", ""]
    return [scale, f"strength {row.strength:g}", f"{row.layers} layer{'s' if row.layers > 1 else ''}"]
