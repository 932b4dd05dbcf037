"""Names of tensors and layers as messages show them: a file may give them any length."""

_LONGEST = 200


def shown(name: str, limit: int = _LONGEST) -> str:
    """Give a name at no more than `limit` characters, the middle left out where it is longer."""
    if len(name) <= limit:
        return name
    end = (limit - 1) // 2
    return f"{name[: limit - 1 - end]}…{name[-end:]}"
