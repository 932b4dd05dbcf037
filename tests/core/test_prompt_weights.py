"""Weights in prompts, read as the A1111 web UI reads them."""

import pytest

from lorakit_cli.core.prompt_weights import is_weighted, weighted_parts
from lorakit_cli.errors import OptionError

# The first ones are the examples in the web UI's own description of its syntax.
CASES = {
    "normal text": [("normal text", 1)],
    "an (important) word": [("an ", 1), ("important", 1.1), (" word", 1)],
    "(unbalanced": [("unbalanced", 1.1)],
    r"\(literal\]": [("(literal]", 1)],
    "(unnecessary)(parens)": [("unnecessaryparens", 1.1)],
    "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).": [
        ("a ", 1), ("house", 1.573), (" ", 1.1), ("on", 1), (" a ", 1.1), ("hill", 0.55), (", sun, ", 1.1),
        ("sky", 1.4641), (".", 1.1),
    ],
    "": [],
    "((red))": [("red", 1.21)],
    "[red] (green:.5) (blue:-1)": [("red", 1 / 1.1), (" ", 1), ("green", 0.5), (" ", 1), ("blue", -1)],
    "at 5:30) and (b: c)": [("at 5:30) and ", 1), ("b: c", 1.1)],
    "a] b\\": [("a] b\\", 1)],
    "C++ and-or": [("C++ and-or", 1)],
}  # fmt: skip


@pytest.mark.parametrize("prompt", CASES)
def test_parts(prompt):
    parts = weighted_parts(prompt)
    assert [part.text for part in parts] == [text for text, _ in CASES[prompt]]
    assert [part.weight for part in parts] == pytest.approx([weight for _, weight in CASES[prompt]])


def test_brackets_alone_are_no_weights():
    for prompt in ("a cat (sitting)", "[a]", "ratio 16:9", r"\(x:1.3\)", "(see page: 3a)", "f(x) = (a:b)"):
        assert not is_weighted(prompt), prompt
    for prompt in ("a (cat:1.3)", "((cat))", "x (a, b : .5 )", "[[cat]]", "(a (b:2) c)"):
        assert is_weighted(prompt), prompt


def test_what_only_the_web_ui_does_is_refused():
    for prompt in ("a [cat:dog:0.5] (x:2)", "[cat|dog] (x:2)", "[cat:10] (x:2)"):
        with pytest.raises(OptionError, match="changes from step to step"):
            weighted_parts(prompt)
    with pytest.raises(OptionError, match="beyond reason"):
        weighted_parts("(x:1000)")


def test_deep_brackets_are_read():
    (part,) = weighted_parts("(" * 300 + "x:0" + ")" * 300)
    assert (part.text, part.weight) == ("x", 0)
    with pytest.raises(OptionError, match="more than 2000 brackets"):
        weighted_parts("(" * 1_000_000)
