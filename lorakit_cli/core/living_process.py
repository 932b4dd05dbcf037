"""Whether a process is still there."""

import os

_SYNCHRONIZE = 0x100000
_ACCESS_DENIED = 5
_STILL_RUNNING = 0x102


def lives(process: int) -> bool:
    """Tell whether a process of this number runs on this machine."""
    import ctypes

    library = getattr(ctypes, "windll", None)
    if library is None:
        try:
            os.kill(process, 0)
        except (ProcessLookupError, OverflowError):
            return False
        except PermissionError:
            return True
        return True
    # On Windows signal 0 is Ctrl-C.
    handle = library.kernel32.OpenProcess(_SYNCHRONIZE, False, process)
    if not handle:
        return bool(library.kernel32.GetLastError() == _ACCESS_DENIED)
    try:
        return bool(library.kernel32.WaitForSingleObject(handle, 0) == _STILL_RUNNING)
    finally:
        library.kernel32.CloseHandle(handle)
