"""Read the text of the A1111 web UI as its users' programs do: written from its description, apart from the product."""

import json


def read_infotext(text):
    """Give prompt, negative prompt and parameters."""
    *lines, last = text.strip().split("\n")
    prompt, negative, current = [], [], None
    for line in lines:
        if line.strip().startswith("Negative prompt:"):
            current = negative
            line = line.strip()[len("Negative prompt:") :]
        (prompt if current is None else negative).append(line.strip())
    return "\n".join(prompt), "\n".join(negative), dict(pairs(last))


def pairs(line):
    """Split `Name: value, Name: "value, quoted"` one character after the other."""
    while line.strip():
        name, _, rest = line.partition(":")
        rest = rest.lstrip()
        if rest.startswith('"'):
            value, end = json.JSONDecoder().raw_decode(rest)
            rest = rest[end:].lstrip()
            assert rest in ("",) or rest.startswith(","), rest
            line = rest[1:]
        else:
            value, _, line = rest.partition(",")
        yield name.strip(), value.strip()
