"""Bring the weights of a base on the Hub onto this machine, after what is made of it was planned from headers."""

from lorakit_cli.architectures import ARCHITECTURES
from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.bytes_done import BytesDone, Progress
from lorakit_cli.core.disk_space import require_space
from lorakit_cli.core.local_folder import read_base_index
from lorakit_cli.core.tensor_info import TensorInfo
from lorakit_cli.errors import BaseModelError, OutputError
from lorakit_cli.sources.hub_download import download, missing_bytes
from lorakit_cli.sources.hub_files import cache_folder


def fetched(base: BaseIndex, progress: Progress | None = None) -> BaseIndex:
    """Give the same base with its weights here, after a download of those that are not.

    Raises BaseModelError, OutputError where there is no room for them.
    """
    if base.is_local:
        return base
    size = missing_bytes(base)
    try:
        require_space(cache_folder(), size)
    except OutputError as error:
        raise OutputError(f"{base.label} is to be downloaded: {error}, which HF_HOME names") from error
    folder = download(base, BytesDone(size, progress))
    local = read_base_index(folder, base.variant, ARCHITECTURES)._replace(remote=base.remote)
    if _tensors(local) != _tensors(base):
        raise BaseModelError(f"{folder} is not what {base.label} is on the Hub; delete it and try again")
    return local


def _tensors(base: BaseIndex) -> dict[str, dict[str, TensorInfo]]:
    return {
        component.name: {name: tensor.info for name, tensor in component.tensors.items()}
        for component in base.components.values()
    }
