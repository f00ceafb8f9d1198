"""How a command ends when something goes wrong: one line if the user can fix it, a traceback if it
is our bug.
"""

import errno
from pathlib import Path

from alexnet.address import DOWNLOAD, not_here, was_address
from alexnet.errors import FULL_DISK, AlexNetError, Interrupted

#: What to do about system errors that name no file.
REMEDIES = {
    **dict.fromkeys(FULL_DISK, "make room on the disk, or write to another"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise the limit on open files with `ulimit -n`"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "change the permissions, or choose another location"),
    **dict.fromkeys((errno.ENOMEM, errno.EAGAIN), "end other programs, or use fewer --workers"),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ETIMEDOUT), "check the disk or the network that it is on"),
}
LESS = "end other programs, or use fewer --workers or smaller batches"
#: Out-of-memory messages that PyTorch and Python raise without an exception type of their own.
NO_MEMORY = ("can't allocate memory", "not enough memory")
NO_THREAD = "can't start new thread"


def explain(error: BaseException) -> tuple[int, str] | None:
    """The exit status and the line to print, which may be empty; None if the error is a bug of
    ours.
    """
    match error:
        case Interrupted():
            return 130, str(error)
        case AlexNetError():
            return 2, str(error)
        case KeyboardInterrupt():
            return 130, "interrupted"
        case BrokenPipeError():  # `alexnet predict ... | head`
            return 141, ""
        case SystemExit() if isinstance(error.__context__, BrokenPipeError):  # rich's way to take it
            return 141, ""
        case MemoryError():
            return 2, f"out of memory{f' ({error})' if str(error) else ''}: {LESS}."
        case RuntimeError():
            return _of_runtime(error)
        case OSError():
            return _of_system(error)
    return None


def _of_runtime(error: RuntimeError) -> tuple[int, str] | None:
    if type(error).__name__ == "OutOfMemoryError":  # torch.cuda's, without importing it for each command
        remedy = "end other programs that use it, or set CUDA_VISIBLE_DEVICES= to compute on the CPU"
        return 2, f"the GPU is out of memory: {remedy}."
    if any(words in str(error) for words in NO_MEMORY):
        return 2, f"out of memory: {LESS}."
    if NO_THREAD in str(error):
        return 2, f"the limit on threads is reached (ulimit -u): {LESS}."
    return None


def _of_system(error: OSError) -> tuple[int, str] | None:
    """The line for an error of the file system: a folder without write permission, a file where a
    folder should be, a full disk.
    """
    if isinstance(error.filename, str) and was_address(Path(error.filename)):
        return 2, not_here(error.filename, "files", DOWNLOAD)
    if error.filename is not None:
        return 2, f"{error.filename}: {error.strerror}"
    remedy = REMEDIES.get(error.errno or 0)
    return (2, f"{error.strerror}: {remedy}.") if remedy else None
