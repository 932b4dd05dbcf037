"""Fixtures: a tiny real pipeline with two real adapters on disk, and ways to run the program."""

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner, Result

if TYPE_CHECKING:
    from tests.hub_server import HubServer
    from tests.web_server import Certificates, WebServer

os.environ["HF_HUB_OFFLINE"] = "1"
# As in the program itself: looking through all that torch and transformers keep takes a tenth of the time.
gc.set_threshold(100_000, 50, 50)
# Workers that run side by side must not each take every core; before torch is imported, which reads it then.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is marked `cuda` where there is none."""
    if item.get_closest_marker("cuda"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs CUDA")


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every test in an empty folder, without the user's own configuration."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("LORAKIT_CONFIG", "LORAKIT_ADAPTERS", "LORAKIT_CACHE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def here() -> Path:
    return Path.cwd()


@pytest.fixture
def lorakit() -> Callable[..., Result]:
    """Run the program in this process."""

    def run(*arguments: object) -> Result:
        from lorakit_cli.app import app

        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        # A bug keeps its traceback; only what lorakit raises on purpose becomes an exit code.
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def program() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run the program as a process of its own."""

    def run(*arguments: object, **options: Any) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "lorakit_cli", *(str(argument) for argument in arguments)]
        return subprocess.run(command, **({"capture_output": True, "text": True} | options))

    return run


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion pipeline folder, in fp16 as published ones are."""
    import torch

    from tests.tiny import build_pipeline

    folder = tmp_path_factory.mktemp("bases") / "tiny-base"
    build_pipeline().to(torch.float16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny pipeline as a single file, in the original names, with what is left of its autoencoder."""
    import torch
    from safetensors.torch import save_file

    from tests.checkpoints import DENOISER, hugging_face_tensors, prefixed, unet_tensors
    from tests.tiny import build_pipeline

    pipeline = build_pipeline().to(torch.float16)
    tensors = prefixed(unet_tensors(pipeline.unet), DENOISER)
    tensors |= prefixed(hugging_face_tensors(pipeline.text_encoder), "cond_stage_model.transformer.")
    tensors |= prefixed(pipeline.vae.state_dict(), "first_stage_model.")
    path = tmp_path_factory.mktemp("checkpoints") / "tiny.safetensors"
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, path)
    return path


@pytest.fixture(scope="session")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two adapters: `ink` (all of UNet and text encoder) and `wash` (attention, alpha 2 at rank 8)."""
    from tests.tiny import ATTENTION, save_adapter

    folder = tmp_path_factory.mktemp("adapters")
    save_adapter(folder / "ink.safetensors", seed=1)
    save_adapter(folder / "wash.safetensors", seed=2, rank=8, alpha=2, targets=ATTENTION, text=False)
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Iterator[HubServer]":
    """A Hub that the client in this process talks to, with empty caches and without a token."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    from tests.hub_server import HubServer

    with HubServer() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        # Large files would go to another service than the Hub.
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        # The client waits between tries.
        monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
        yield server


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> "Certificates":
    """What lets a server on this machine prove who it is, to whoever trusts these."""
    from tests.web_server import Certificates

    return Certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def web_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which files from the web are kept, empty."""
    monkeypatch.setenv("LORAKIT_CACHE", str(tmp_path / "web-cache"))
    return tmp_path / "web-cache"


@pytest.fixture
def site(certificates: "Certificates", web_cache: Path, monkeypatch: pytest.MonkeyPatch) -> "Iterator[WebServer]":
    """A web site on this machine over TLS, which speaks for CivitAI too; nobody waits between tries."""
    from lorakit_cli.sources import web_tries
    from tests.web_server import WebServer

    for variable in ("HF_HUB_OFFLINE", "LORAKIT_OFFLINE", "CIVITAI_API_TOKEN", "CIVITAI_API_KEY", "HTTPS_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(web_tries, "PAUSES", (0.0,) * len(web_tries.PAUSES))
    with WebServer(certificates) as server:
        monkeypatch.setenv("LORAKIT_CIVITAI_URL", server.url)
        yield server


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function that takes the network from the client in this process."""
    from huggingface_hub import constants

    return lambda: monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
