"""Make the scheduler that settings ask for, from the configuration of the base's own."""

import inspect
from collections.abc import Mapping
from typing import Any

import diffusers

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.base_scheduler import scheduler_config
from lorakit_cli.core.generation import Settings
from lorakit_cli.core.schedulers import find_sampler, is_flow
from lorakit_cli.errors import OptionError, UnsupportedError, did_you_mean


def make_scheduler(settings: Settings, own: Any) -> Any:
    """Give a scheduler for one picture: the base's own where nothing else is asked for.

    Raises OptionError for one that there is not or that has no such option, UnsupportedError where a library is missing
    that it needs.
    """
    if settings.scheduler is None and not settings.scheduler_options:
        return own
    config = dict(own.config)
    kind: Any
    if settings.scheduler is None:
        kind, options = type(own), settings.scheduler_options
    else:
        sampler = find_sampler(settings.scheduler, flow=is_flow({"_class_name": type(own).__name__} | config))
        kind = getattr(diffusers, sampler.class_name)
        shift = {"flow_shift": config.get("shift", 1.0)} if "use_flow_sigmas" in sampler.options else {}
        options = {**shift, **sampler.options, **settings.scheduler_options}
    return _made(kind, config, options)


def require_known(settings: Settings, base: BaseIndex) -> None:
    """Raise what `make_scheduler` will raise, before the base is loaded, where its configuration says which it has."""
    config = scheduler_config(base) or {}
    kind: Any = getattr(diffusers, str(config.get("_class_name")), None)
    if hasattr(kind, "set_timesteps"):
        make_scheduler(settings, kind.from_config(config))


def _made(kind: Any, config: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    known = [name for name in inspect.signature(kind.__init__).parameters if name not in ("self", "kwargs")]
    for name in options:
        if name not in known:
            near = did_you_mean(name, known) or "."
            raise OptionError(f"{kind.__name__} has no option {name}{near} Its options are {', '.join(known)}")
    try:
        return kind.from_config(config, **options)
    except ImportError as error:
        # diffusers says which library, in a text of many lines.
        said = " ".join(str(error).split())
        raise UnsupportedError(f"{kind.__name__} cannot be used here: {said}") from error
    except (TypeError, ValueError, NotImplementedError, AttributeError) as error:
        given = ", ".join(f"{name}={value}" for name, value in options.items())
        raise OptionError(f"{kind.__name__} does not work with {given}: {error}") from error
