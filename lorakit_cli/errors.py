"""Everything lorakit raises on purpose.

    LorakitError                    exit 1: it could not be done
    ├── UsageError                  exit 2: the request itself is malformed
    │   ├── AdapterSpecError
    │   ├── BlockScalesError
    │   └── OptionError
    ├── PathError
    ├── LibraryError                a broken lorakit.toml
    ├── UnknownAdapterError
    │   └── NotDownloadedError      known, but not on this machine, and not to be fetched now
    ├── FetchError                  an adapter elsewhere could not be brought here
    │   └── DownloadError           a file on the web that does not come, or is not what it should be
    ├── BaseModelError
    ├── LoraFileError
    │   ├── CorruptFileError
    │   ├── NotALoraError
    │   ├── PickleError             a pickle that may not be opened, or not safely
    │   └── UnknownFormatError
    ├── MatchError
    │   ├── WrongBaseError
    │   ├── NothingMatchedError
    │   └── UnmatchedLayersError
    ├── RecipeError                 a recipe that cannot be read, or not replayed
    ├── UnsupportedError            right as asked, but this engine or machine cannot do it
    └── OutputError
        ├── OutputExistsError
        ├── PushError               an output is complete, but not on the Hub
        └── VerificationError       an output that is not what it should be

A message says what is wrong, where, and what to try next. Anything else that is raised is a bug and keeps its
traceback.
"""

from collections.abc import Iterable


class LorakitError(Exception):
    """Something the user asked for could not be done."""

    exit_code = 1


class UsageError(LorakitError):
    """The request is malformed, whatever the files say."""

    exit_code = 2


class AdapterSpecError(UsageError):
    """An adapter spec does not follow `[NAME=]SOURCE[:WEIGHT]`."""


class BlockScalesError(UsageError):
    """Block scales are malformed, or name a block that the base does not have."""


class OptionError(UsageError):
    """An option has a value that cannot be used."""


class PathError(LorakitError):
    """A path that this system cannot look up."""


class LibraryError(LorakitError):
    """A lorakit.toml cannot be read or holds something unexpected."""


class UnknownAdapterError(LorakitError):
    """No adapter is known by this name."""


class NotDownloadedError(UnknownAdapterError):
    """An adapter elsewhere that is not on this machine, asked for by what downloads nothing."""


class FetchError(LorakitError):
    """An adapter elsewhere could not be brought onto this machine."""


class DownloadError(FetchError):
    """A file on the web does not come, or is not what it should be."""


class BaseModelError(LorakitError):
    """A base model cannot be found or read."""


class LoraFileError(LorakitError):
    """An adapter file cannot be used."""


class CorruptFileError(LoraFileError):
    """A file is truncated or contradicts its own header."""


class NotALoraError(LoraFileError):
    """A well-formed file that holds no adapter."""


class PickleError(LoraFileError):
    """A pickle that was not allowed to be opened, or that asks for more than tensors."""


class UnknownFormatError(LoraFileError):
    """An adapter whose key names follow no known layout."""


class MatchError(LorakitError):
    """An adapter and a base do not fit together."""


class WrongBaseError(MatchError):
    """An adapter was made for another family of model."""


class NothingMatchedError(MatchError):
    """An adapter touches nothing in the base."""


class UnmatchedLayersError(MatchError):
    """Some layers of an adapter do not fit the base, and `--strict` was asked for."""


class RecipeError(LorakitError):
    """A recipe cannot be read, or what it names is not what it was."""


class UnsupportedError(LorakitError):
    """A well-formed request that this engine or machine cannot carry out."""


class OutputError(LorakitError):
    """An output cannot be written."""


class OutputExistsError(OutputError):
    """An output exists already."""


class PushError(OutputError):
    """An output cannot be pushed to the Hub, or was not; where there is one, it is complete on this machine."""


class VerificationError(OutputError):
    """An output is not what base and adapters come to."""


def nearest(word: str, known: Iterable[str], count: int = 3) -> list[str]:
    """List the known words that look most like this one, best first."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    # A run without a mistake does not need it.
    import difflib

    return [by_lower[match] for match in difflib.get_close_matches(word.lower(), by_lower, count, 0.5)]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Give a sentence that names the nearest words, or nothing."""
    matches = nearest(word, known)
    return f"; did you mean {' or '.join(matches)}?" if matches else ""
