"""The errors of this package. It imports nothing, so that every module can import it."""


class InputError(ValueError):
    """An image argument that cannot be scored; one line: its name, what was expected, what came."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be found, read or trusted; the message says why, in one line."""


class MissingPackageError(ImportError):
    """An optional package that an option needs; the message says how to install it."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out, on a GPU or on the CPU."""
    # By name, because torch takes seconds to import; for a CPU, and for a kernel that CUDA cannot
    # load any more, it has no class of its own.
    texts = ("DefaultCPUAllocator", "CUDA error: out of memory")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and (
            type(error).__name__ == "OutOfMemoryError" or any(text in str(error) for text in texts)
        )
    )
