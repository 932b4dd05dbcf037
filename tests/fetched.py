"""What was fetched from the web, and how it was refused."""

import pytest

from lorakit_cli.errors import DownloadError
from lorakit_cli.sources.web import web_file


def files_in(folder):
    """List what is kept, but for the locks."""
    return sorted(file.name for file in folder.rglob("*") if file.is_file() and file.name != ".lock")


def fails(source, kind=DownloadError, **options):
    """Give the message with which a source is refused."""
    with pytest.raises(kind) as caught:
        web_file(source, **options)
    return str(caught.value)
