"""Whether a base is the one it was: its files of weights against the digests that a recipe keeps of them."""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from lorakit_cli.core.base_files import by_file, stored_tensors
from lorakit_cli.core.base_index import BaseIndex, BaseTensor
from lorakit_cli.core.file_digest import FileDigest, digest_files, digest_tensors
from lorakit_cli.core.match import Target

_Tensors = dict[Target, BaseTensor]
_THREADS = 4
# So much for one thread at a time: a file of one large component is read by all of them.
_BATCH = 64 << 20


def differing_files(base: BaseIndex, recorded: Mapping[str, FileDigest]) -> Iterator[str]:
    """Yield the files that a base has not, has in addition, or has with other contents; none: it is the one it was.

    What names and sizes tell comes first, so that whoever needs only one reads nothing for it. A single file may have
    another name by now. Raises BaseModelError for a base on the Hub, OSError.
    """
    files = {_name(path, base, recorded): (path, own) for path, own in by_file(stored_tensors(base)).items()}
    yield from (name for name in recorded if name not in files)
    same_size: dict[str, tuple[Path, _Tensors]] = {}
    for name, (path, own) in files.items():
        if name in recorded and path.stat().st_size == recorded[name].size:
            same_size[name] = path, own
        else:
            yield name
    with ThreadPoolExecutor(_THREADS) as pool:
        try:
            jobs = {name: _submit(pool, *file) for name, file in same_size.items()}
            for name, (path, own) in same_size.items():
                digests = {target: digest for job in jobs[name] for target, digest in job.result().items()}
                if digest_files(own, digests, [path])[path] != recorded[name]:
                    yield name
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _name(path: Path, base: BaseIndex, recorded: Mapping[str, FileDigest]) -> str:
    """Give the name under which a file would be recorded."""
    if path != base.path:
        return path.relative_to(base.path).as_posix()
    only = next(iter(recorded)) if len(recorded) == 1 else path.name
    return path.name if "/" in only else only


def _submit(pool: ThreadPoolExecutor, path: Path, tensors: _Tensors) -> list[Future[dict[Target, bytes]]]:
    batches: list[dict[Target, BaseTensor]] = [{}]
    size = 0
    for target, tensor in tensors.items():
        if size >= _BATCH:
            batches.append({})
            size = 0
        batches[-1][target] = tensor
        size += tensor.info.end - tensor.info.begin
    return [pool.submit(digest_tensors, path, batch) for batch in batches]
