"""Write files as torch.save does, and read them as the reading process does."""

import io
import zipfile

import torch

from lorakit_cli.service.pickle_reading import read_pickle

A, B = torch.arange(6.0).reshape(2, 3), torch.arange(10.0).reshape(5, 2) - 4


def saved(value, *, legacy=False):
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def read(value, component="unet"):
    """Read in this process what `torch.save` makes of a value, or bytes as they are."""
    data = value if isinstance(value, bytes) else saved(value)
    return read_pickle(io.BytesIO(data), len(data), component)


def write(path, value, **options):
    path.write_bytes(value if isinstance(value, bytes) else saved(value, **options))
    return path


def rezipped(data, change, compression=zipfile.ZIP_STORED):
    """Write a torch zip again, its members changed."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(made, "w", compression) as new:
        for member in old.infolist():
            new.writestr(member.filename, change(member.filename, old.read(member)))
    return made.getvalue()
