"""Versions of models on CivitAI: which of their files is the adapter, what the site says of it, and its download."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from lorakit_cli.core.adapter_spec import FILE_SUFFIXES
from lorakit_cli.core.civitai_reference import SITE, VARIABLE, CivitaiReference, civitai_site
from lorakit_cli.core.stated import CIVITAI, LONGEST_JSON, capped, parse_json
from lorakit_cli.errors import DownloadError, NotALoraError, UnknownAdapterError, did_you_mean
from lorakit_cli.sources.web_client import connected, opened
from lorakit_cli.sources.web_errors import Asked
from lorakit_cli.sources.web_fetch import SAFETENSORS, Expected, require_no_pickle
from lorakit_cli.sources.web_name import safe_name
from lorakit_cli.sources.web_transfer import Wanted
from lorakit_cli.sources.web_tries import BrokenOffError, answered, persistently, require_given

TOKENS = ("CIVITAI_API_TOKEN", "CIVITAI_API_KEY")
_LOG_IN = "/login"
# What the site calls models that hold no adapter.
_NO_ADAPTERS = (
    "Checkpoint", "TextualInversion", "Hypernetwork", "AestheticGradient", "Controlnet", "Poses", "VAE", "Upscaler",
    "Wildcards", "Workflows",
)  # fmt: skip
_MOST_LISTED = 20


def civitai_file(reference: CivitaiReference, *, allow_pickle: bool = True) -> Expected:
    """Ask the site which file a version is, and give what is to be fetched.

    Raises DownloadError, UnknownAdapterError where the file is to be chosen, NotALoraError for what the site says is
    none, PickleError.
    """
    site = civitai_site()
    if urlsplit(site).scheme != "https" or not urlsplit(site).hostname:
        raise DownloadError(f"{VARIABLE} names {site}, which is no address with https://")
    source, token = str(reference), _token()
    data = _ask(f"{site}/api/v1/model-versions/{reference.version}", source, token)
    try:
        version = parse_json(data)
    except ValueError as error:
        raise DownloadError(f"what CivitAI says of {source} {error}; try again later") from error
    if not isinstance(version, dict):
        raise DownloadError(f"what CivitAI says of {source} is no JSON object; try again later")
    _require_adapter(version, source)
    file = _chosen(_files(version), reference)
    name = safe_name(str(file["name"]))
    require_no_pickle(source, name, allow_pickle=allow_pickle)
    url = str(file["downloadUrl"])
    stated = file.get("hashes")
    hashes: Mapping[str, Any] = stated if isinstance(stated, dict) else {}
    sha256 = hashes.get("SHA256")
    return Expected(
        Wanted(url, _asked(source, url, version, token), _headers(url, token), log_in=_LOG_IN),
        source,
        name,
        sha256.lower() if isinstance(sha256, str) and sha256 else None,
        {"hashes": hashes},
        {CIVITAI: json.dumps(version, indent=2, ensure_ascii=False).encode(errors="replace")},
        allow_pickle,
        named=True,
    )


def _ask(url: str, source: str, token: str | None) -> bytes:
    asked = _asked(source, url, {}, token)

    def attempt(again: bool) -> bytes:
        with answered(asked, again=again), opened(client, url, _headers(url, token), asked) as response:
            require_given(response, asked, 200)
            content = bytearray()
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > LONGEST_JSON:
                    raise DownloadError(f"what CivitAI says of {source} is longer than {LONGEST_JSON / 1e6:.0f} MB")
            return bytes(content)

    try:
        with connected() as client:
            return persistently(attempt)
    except BrokenOffError as broken:
        raise broken.failure from broken


def _asked(source: str, url: str, version: Mapping[str, Any], token: str | None) -> Asked:
    until = version.get("earlyAccessEndsAt") or version.get("earlyAccessDeadline")
    early = f"; its early access lasts until {capped(str(until), 30)}" if until else ""
    log_in = (
        f"the token in {TOKENS[0]} may be wrong, or its account may not have it (early access){early}"
        if token
        else f"set {TOKENS[0]} to a key from the site's account settings{early}"
    )
    missing = "the number is a version's, which stands behind modelVersionId= in its page's address, not the model's"
    return Asked(source, urlsplit(url).hostname or "", log_in, missing)


def _token() -> str | None:
    variable = next((name for name in TOKENS if os.environ.get(name, "").strip()), None)
    if variable is None:
        return None
    token = os.environ[variable].strip()
    if not token.isascii() or not token.isprintable() or " " in token:
        raise DownloadError(f"{variable} holds what can be no key of CivitAI's")
    return token


def _headers(url: str, token: str | None) -> dict[str, str]:
    """Give the token to the site alone, whatever address it names for a file."""
    ours = (urlsplit(civitai_site()).netloc, urlsplit(SITE).netloc)
    return {"Authorization": f"Bearer {token}"} if token and urlsplit(url).netloc in ours else {}


def _require_adapter(version: Mapping[str, Any], source: str) -> None:
    model = version.get("model")
    kind = model.get("type") if isinstance(model, dict) else None
    if kind in _NO_ADAPTERS:
        name = capped(str(model.get("name", "")), 80) if isinstance(model, dict) else ""
        raise NotALoraError(f"{source} is a {kind} ({name}), and no adapter")


def _files(version: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """List the files of weights that can be fetched."""
    files = version.get("files")
    return [
        file
        for file in (files if isinstance(files, list) else [])
        if isinstance(file, dict)
        and isinstance(file.get("name"), str)
        and isinstance(file.get("downloadUrl"), str)
        and file["name"].lower().endswith(FILE_SUFFIXES)
    ]


def _chosen(files: Sequence[Mapping[str, Any]], reference: CivitaiReference) -> Mapping[str, Any]:
    """Choose the file that was named, else the primary one or the only one; a pickle only where there is no other."""
    if reference.file:
        named = [file for file in files if file["name"] == reference.file]
        if named:
            return named[0]
        near = did_you_mean(reference.file, (file["name"] for file in files)) or _listed(files)
        raise UnknownAdapterError(f"civitai:{reference.version} has no file {reference.file!r}{near}")
    models = [file for file in files if file.get("type") in (None, "Model", "Pruned Model")]
    safe = [file for file in models if file["name"].lower().endswith(SAFETENSORS)]
    for candidates in (safe, models):
        primary = [file for file in candidates if file.get("primary") is True]
        if len(primary) == 1 or len(candidates) == 1:
            return (primary if len(primary) == 1 else candidates)[0]
        if candidates:
            example = f"{reference}/{candidates[0]['name']}"
            raise UnknownAdapterError(f"{reference} has several files{_listed(candidates)}; name one, {example}")
    raise UnknownAdapterError(f"{reference} has no file of weights on CivitAI{_listed(files)}")


def _listed(files: Sequence[Mapping[str, Any]]) -> str:
    names = [capped(str(file["name"]), 100) for file in files[:_MOST_LISTED]]
    return f": {', '.join(names)}" if names else ""
