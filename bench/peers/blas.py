"""Names the BLAS behind PyTorch, so that nobody compares with a crippled one."""
import ctypes
import os


def blas():
    """Which library answers sgemm: by name of the shared objects that are mapped."""
    with open("/proc/self/maps") as maps:
        names = {os.path.realpath(line.split()[-1]) for line in maps if "blas" in line.lower() or "mkl" in line.lower()}
    libraries = sorted(os.path.basename(name) for name in names)
    for name in sorted(names):
        try:
            library = ctypes.CDLL(name)
            library.openblas_get_config.restype = ctypes.c_char_p
            return library.openblas_get_config().decode(), libraries
        except (AttributeError, OSError):
            continue
    return None, libraries
