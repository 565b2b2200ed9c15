#!/usr/bin/env python3
"""Writes state_dict.bin as torch.save would, without torch: Python's own pickler over stand-ins of torch's classes.

    python3 make_state_dict.py            (writes beside itself)

Three tensors: two of their own storages, and one that is a window on the second storage; the dict is an OrderedDict
with _metadata, as a module's state_dict() is.
"""
import collections, io, os, pickle, struct, sys, types, zipfile

torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
sys.modules.update({"torch": torch, "torch._utils": utils})


def stand_in(module, name):
    thing = type(name, (), {"__module__": module.__name__})
    thing.__qualname__ = name
    setattr(module, name, thing)
    return thing


Half, Single = stand_in(torch, "HalfStorage"), stand_in(torch, "FloatStorage")


def _rebuild_tensor_v2(*arguments):
    raise NotImplementedError


_rebuild_tensor_v2.__module__ = "torch._utils"
utils._rebuild_tensor_v2 = _rebuild_tensor_v2


class Storage:
    def __init__(self, kind, key, numbers):
        self.kind, self.key, self.numbers = kind, key, numbers

    def bytes(self):
        return struct.pack(f"<{len(self.numbers)}{'e' if self.kind is Half else 'f'}", *self.numbers)


class Tensor:
    def __init__(self, storage, offset, size, stride):
        self.arguments = (storage, offset, size, stride, False, collections.OrderedDict())

    def __reduce_ex__(self, protocol):
        return _rebuild_tensor_v2, self.arguments


class Pickler(pickle._Pickler):
    def persistent_id(self, value):
        if isinstance(value, Storage):
            return "storage", value.kind, value.key, "cpu", len(value.numbers)


a = Storage(Half, "0", [i / 8 for i in range(600)])
b = Storage(Single, "1", [1.5, -2.0, 3.25, 1e-3])
state = collections.OrderedDict()
state["transformer.a.weight"] = Tensor(a, 0, (2, 300), (300, 1))
state["transformer.b.bias"] = Tensor(b, 0, (4,), (1,))
state["transformer.b.window"] = Tensor(b, 1, (1, 2), (7, 1))
state._metadata = collections.OrderedDict([("", {"version": 1}), ("transformer", {"version": 1})])

text = io.BytesIO()
Pickler(text, protocol=2).dump(state)
with zipfile.ZipFile(os.path.join(os.path.dirname(os.path.abspath(__file__)), "state_dict.bin"), "w") as out:
    def put(name, data):
        out.writestr(zipfile.ZipInfo("archive/" + name, (1980, 1, 1, 0, 0, 0)), data)

    put("data.pkl", text.getvalue())
    put("byteorder", b"little")
    for storage in (a, b):
        put("data/" + storage.key, storage.bytes())
    put("version", b"3\n")
