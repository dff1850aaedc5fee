"""affuse's C interface (native/include/affuse/affuse.h) on tensors that are on the device already."""
import ctypes

MAX_RANK = 5
F32, I32 = 1, 3


class Tensor(ctypes.Structure):
    _fields_ = [("dtype", ctypes.c_int32), ("rank", ctypes.c_int32), ("dim", ctypes.c_int64 * MAX_RANK),
                ("data", ctypes.c_void_p)]


class Attribute(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("value", ctypes.c_char_p)]


class Error(ctypes.Structure):
    _fields_ = [("code", ctypes.c_char * 48), ("message", ctypes.c_char * 464)]


class Operator(ctypes.Structure):
    _fields_ = [(name, ctypes.c_char_p) for name in ("name", "summary", "backward", "flops", "bytes")] + [
        (name, ctypes.c_int32) for name in ("inputs", "outputs", "attributes")]


class Rule(ctypes.Structure):
    _fields_ = [(name, ctypes.c_char_p) for name in ("name", "shape", "doc")] + [
        (name, ctypes.c_int32) for name in ("dtype", "optional")]


class AffuseError(Exception):
    pass


class Call:
    """One operator on fixed tensors: made once, queued many times."""

    def __init__(self, affuse, name, inputs, outputs, attributes):
        self.affuse, self.name = affuse, name.encode()
        names = affuse.rules(name)
        self.inputs = self._tensors(names[0], inputs)
        self.outputs = self._tensors(names[1], outputs)
        self.attributes = (Attribute * max(1, len(attributes)))(
            *[Attribute(key.encode(), str(value).encode()) for key, value in attributes.items()])
        self.count = len(attributes)
        self.kept = (inputs, outputs)  # the memory stays alive

    def _tensors(self, names, given):
        unknown = set(given) - set(names)
        if unknown:
            raise AffuseError(f"{self.name.decode()} has no {', '.join(sorted(unknown))}")
        return (Tensor * len(names))(*[self.affuse.tensor(given.get(name)) for name in names])

    def queue(self, stream=None):
        a = self.affuse
        a.check(a.library.affuse_queue(self.name, a.device, self.inputs, len(self.inputs), self.attributes, self.count,
                                       self.outputs, len(self.outputs), stream, ctypes.byref(a.error)))


class Affuse:
    def __init__(self, path, device):
        self.library = ctypes.CDLL(path)
        self.device = device.encode()
        self.error = Error()
        self.library.affuse_queue.argtypes = [
            ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p,
            ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
        self.library.affuse_version.restype = ctypes.c_char_p

    def check(self, code):
        if code != 0:
            raise AffuseError(f"{self.error.code.decode()}: {self.error.message.decode()}")

    def version(self):
        return self.library.affuse_version().decode()

    def rules(self, name):
        operator = Operator()
        self.check(self.library.affuse_operator_find(name.encode(), ctypes.byref(operator), ctypes.byref(self.error)))
        result = []
        for kind, count in (("input", operator.inputs), ("output", operator.outputs)):
            names = []
            describe = getattr(self.library, f"affuse_operator_{kind}")
            for i in range(count):
                rule = Rule()
                self.check(describe(name.encode(), i, ctypes.byref(rule), ctypes.byref(self.error)))
                names.append(rule.name.decode())
            result.append(names)
        return result

    def tensor(self, value):
        if value is None:
            return Tensor()
        dims = (ctypes.c_int64 * MAX_RANK)(*value.shape)
        kind = I32 if "int32" in str(value.dtype) else F32
        return Tensor(kind, len(value.shape), dims, value.data_ptr())

    def call(self, name, inputs, outputs, **attributes):
        return Call(self, name, inputs, outputs, attributes)

    def finish(self):
        self.check(self.library.affuse_finish(self.device, ctypes.byref(self.error)))
