"""Numbers by pattern: literal names are looked up, and give what peft's own matching gives."""

import re
import time

import pytest
from peft.utils.other import get_pattern_key

from lorakit_cli.core.name_patterns import NamePatterns, ends_of, one_of

MODULES = [
    "to_q", "a.to_q", "a.b.to_q", "xto_q", "a.xto_q", "blocks.1.to_q", "blocks.11.to_q", "proj_out",
    "single.0.proj_out",
]  # fmt: skip
PATTERNS = [
    ("to_q",), ("^to_q",), ("^a.to_q$",), ("a.to_q$",), ("(a.to_q|proj_out)",), ("^(a.to_q|proj_out)",),
    ("(?:b.to_q|a.to_q)$",), ("b.to_q", "to_q"), ("to_q", "b.to_q"), ("^a.b.to_q", "b.to_q"), (r"blocks\.1\.to_q",),
    (r"^blocks\.\d\.to_q$",), (r"to_\w", "to_q"), ("to_q", r"to_\w"), (r"single.*out", "proj_out"), ("nothing",),
]  # fmt: skip


@pytest.mark.parametrize("patterns", PATTERNS)
@pytest.mark.parametrize("module", MODULES)
def test_what_fits_is_what_peft_finds(patterns, module):
    values = {pattern: float(number + 1) for number, pattern in enumerate(patterns)}
    ours = NamePatterns(tuple(values.items()))
    ours.require_sane()
    assert ours.find(module) == values.get(get_pattern_key(values, module))


@pytest.mark.parametrize("anchored", [True, False])
def test_one_pattern_stands_for_many_names(anchored):
    names = ["a.to_q", "proj_out"]
    ours = NamePatterns(((one_of(names, anchored=anchored), 2.0), (one_of(["xto_q"], anchored=anchored), 3.0)))
    found = {module: ours.find(module) for module in MODULES}
    assert {module for module, value in found.items() if value == 2.0} == (
        set(names) if anchored else {*names, "single.0.proj_out"}
    )
    assert found["xto_q"] == 3.0
    assert found["a.xto_q"] == (None if anchored else 3.0)


def test_ends_of_a_name():
    assert list(ends_of("a.b.c")) == ["a.b.c", "b.c", "c"]


def test_hundreds_of_patterns_and_modules_take_no_time():
    names = [f"down_blocks.{number}.attentions.0.to_q" for number in range(3000)]
    patterns = NamePatterns(tuple((f"^{name}$", float(number)) for number, name in enumerate(names)))
    begin = time.perf_counter()
    assert [patterns.find(name) for name in names] == [float(number) for number in range(3000)]
    # Held against each other one by one, these are nine million pairs.
    assert time.perf_counter() - begin < 1


@pytest.mark.parametrize(
    "pattern", ["(?i)conv_in", r"([\w.]+)*!", "a" * 2000, "(a|" + "b" * 2000 + ")", "(", "a{9}{9}("]
)
def test_what_could_hang_or_is_no_pattern(pattern):
    with pytest.raises((ValueError, re.error)):
        NamePatterns(((pattern, 1.0),)).require_sane()
