"""Names the BLAS behind PyTorch, so that nobody compares with a crippled one, and sets its threads: OpenBLAS with its own
threads does not follow torch.set_num_threads."""
import ctypes
import os

_openblas = None


def blas():
    """Which library answers sgemm: (OpenBLAS's own description or None, names of the mapped BLAS libraries)."""
    global _openblas
    try:
        with open("/proc/self/maps") as maps:
            names = {os.path.realpath(line.split()[-1]) for line in maps if "blas" in line.lower() or "mkl" in line.lower()}
    except OSError:
        return None, []
    libraries = sorted(os.path.basename(name) for name in names)
    for name in sorted(names):
        try:
            library = ctypes.CDLL(name)
            library.openblas_get_config.restype = ctypes.c_char_p
            _openblas = library
            return library.openblas_get_config().decode(), libraries
        except (AttributeError, OSError):
            continue
    return None, libraries


def set_threads(count):
    if _openblas is not None:
        _openblas.openblas_set_num_threads(count)
