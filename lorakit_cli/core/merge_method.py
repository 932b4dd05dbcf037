"""The ways to make one adapter of several, and the settings that belong to each."""

from typing import NamedTuple

from lorakit_cli.errors import OptionError, did_you_mean

_SVD = "_svd"
SIGNS = ("total", "frequency")


class MergeMethod(NamedTuple):
    """One way to merge.

    `prunes`: it leaves a share of the values out, which --density says. `draws`: by lot. `elects`: of several changes
    to one value it takes those of the sign that wins. `factors`: it works on the factors as they are, which is no
    arithmetic of the changes but close to it at times. Otherwise, where `reduces`, it works on whole changes and brings
    the outcome to a rank.
    """

    name: str
    prunes: bool = False
    draws: bool = False
    elects: bool = False
    factors: bool = False
    reduces: bool = False


METHODS = {
    method.name: method
    for method in (
        MergeMethod("cat"),
        MergeMethod("svd", reduces=True),
        MergeMethod("linear"),
        MergeMethod("ties", prunes=True, elects=True, factors=True),
        MergeMethod("dare_linear", prunes=True, draws=True, factors=True),
        MergeMethod("dare_ties", prunes=True, draws=True, elects=True, factors=True),
        MergeMethod("magnitude_prune", prunes=True, factors=True),
        MergeMethod("ties_svd", prunes=True, elects=True, reduces=True),
        MergeMethod("dare_linear_svd", prunes=True, draws=True, reduces=True),
        MergeMethod("dare_ties_svd", prunes=True, draws=True, elects=True, reduces=True),
        MergeMethod("magnitude_prune_svd", prunes=True, reduces=True),
    )
}


class MergeSettings(NamedTuple):
    """A method with the share of values to keep, the way signs are elected, and the seed of what is drawn."""

    method: MergeMethod
    density: float | None = None
    majority_sign: str = "total"
    seed: int = 0

    def as_json(self) -> dict[str, object]:
        """Give the settings that mean something for the method."""
        method = self.method
        entries: dict[str, object] = {"method": method.name}
        if method.prunes:
            entries["density"] = self.density
        if method.elects:
            entries["majority_sign"] = self.majority_sign
        if method.draws:
            entries["seed"] = self.seed
        return entries


def merge_settings(
    name: str | None, *, reduces: bool, density: float | None, majority_sign: str | None, seed: int | None
) -> MergeSettings:
    """Check options and make settings of them; without a name it is `svd` where a rank is asked for, else `cat`.

    Raises OptionError for an unknown method, and for settings that are missing or mean nothing for it.
    """
    name = name or ("svd" if reduces else "cat")
    if name not in METHODS:
        near = did_you_mean(name, METHODS) or ";"
        raise OptionError(f"--method {name!r} is not known{near} the methods are {', '.join(METHODS)}")
    method = METHODS[name]
    if reduces and not method.reduces:
        other = f"; {name}{_SVD} does" if name + _SVD in METHODS else "; svd does"
        raise OptionError(
            f"--method {name} keeps the ranks that come of it and takes no --rank, --energy or --size{other}"
        )
    if method.prunes != (density is not None):
        raise OptionError(
            f"--method {name} needs --density, the share of values it keeps, such as 0.5"
            if method.prunes
            else f"--density is for methods that leave values out, such as ties_svd; {name} does not"
        )
    if density is not None and not 0 < density <= 1:
        raise OptionError(f"--density {density} is a share that is kept, above 0 and at most 1")
    if majority_sign is not None and not method.elects:
        raise OptionError(f"--majority-sign is for methods that elect signs, such as ties_svd; {name} does not")
    if majority_sign is not None and majority_sign not in SIGNS:
        raise OptionError(f"--majority-sign {majority_sign!r} must be {' or '.join(SIGNS)}")
    if seed is not None and not method.draws:
        raise OptionError(f"--seed is for methods that draw lots, such as dare_ties_svd; {name} does not")
    return MergeSettings(method, density, majority_sign or SIGNS[0], seed or 0)
