"""Values with named fields whose class takes next to no time to make, so that a start stays short."""

from typing import Any, ClassVar, Self, dataclass_transform


@dataclass_transform(frozen_default=True)
class Record:
    """What a NamedTuple is, but no tuple: fields by annotation, some with defaults, never changed.

    Making such a class takes a twentieth of the time; a value of it takes longer to make than a NamedTuple, so that
    what there is by the thousand is better one of those.
    """

    _fields: ClassVar[tuple[str, ...]] = ()
    _defaults: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls) -> None:
        """Note the fields and their defaults."""
        cls._fields = tuple(cls.__annotations__)
        cls._defaults = {name: cls.__dict__[name] for name in cls._fields if name in cls.__dict__}

    def __init__(self, *values: Any, **named: Any) -> None:
        """Take the fields in order or by name. Raises TypeError for one too few, too many or twice."""
        given = dict(zip(self._fields, values, strict=False))
        whole = self._defaults | given | named
        wrong = (len(values) > len(self._fields), len(whole) != len(self._fields), not given.keys().isdisjoint(named))
        if any(wrong) or not whole.keys() <= set(self._fields):
            raise TypeError(f"{type(self).__name__} has the fields {', '.join(self._fields)}")
        self.__dict__.update(whole)

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse to change. Raises AttributeError."""
        raise AttributeError(f"a {type(self).__name__} is not changed")

    def __eq__(self, other: object) -> bool:
        """Compare with another of the same class by the fields."""
        return type(other) is type(self) and self._values() == other._values()

    def __hash__(self) -> int:
        """Give a hash of the fields."""
        return hash(self._values())

    def __repr__(self) -> str:
        """Write the fields."""
        fields = zip(self._fields, self._values(), strict=True)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in fields)})"

    def _replace(self, **changes: Any) -> Self:
        """Give another with these fields changed."""
        return type(self)(**dict(zip(self._fields, self._values(), strict=True)) | changes)

    def _values(self) -> tuple[Any, ...]:
        return tuple(self.__dict__[name] for name in self._fields)
