"""Shared libraries that AOTInductor makes, called through their C interface.

torch's own loader holds Python's interpreter lock during a call, so that two threads run one after the other; a call through ctypes does
not. The interface is torch/csrc/inductor/aoti_runtime/interface.h.
"""

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from scoremd.errors import ScoreMDError

_address_in = ctypes.pythonapi.PyCapsule_GetPointer
_address_in.restype, _address_in.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
_capsule_of = ctypes.pythonapi.PyCapsule_New
_capsule_of.restype, _capsule_of.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


class CompiledLibrary:
    """A function of tensors.

    Parameters
    ----------
    path : the shared library
    concurrent : how many calls may run at the same time; more wait

    Raises
    ------
    ScoreMDError
        If the file is no such library.
    """

    def __init__(self, path: Path, concurrent: int) -> None:
        self.path, self._container = path, ctypes.c_void_p()
        try:
            self._library = ctypes.CDLL(str(path))
            create, run = self._library.AOTInductorModelContainerCreateWithDevice, self._library.AOTInductorModelContainerRun
        except (OSError, AttributeError) as error:
            raise ScoreMDError(f"{path}: is not a compiled function ({error}); remove it to compile it again") from None
        self._run = run
        self._check(create(ctypes.byref(self._container), ctypes.c_size_t(concurrent), b"cpu", None))
        count = ctypes.c_size_t()
        self._check(self._library.AOTInductorModelContainerGetNumOutputs(self._container, ctypes.byref(count)))
        self._outputs = count.value

    def _check(self, error: int) -> None:
        if error:
            raise ScoreMDError(f"{self.path}: the compiled function failed, see above; remove this file to compile it again")

    def __call__(self, inputs: list[Tensor]) -> list[Tensor | None]:
        """Run it on inputs of the number, shapes, strides and types that it was compiled for, which it does not check.

        Gives None where the function gives None.
        """
        handles = (ctypes.c_void_p * len(inputs))()
        # the library takes these handles over, and gives its own away
        handles[:] = [_address_in(c, None) for c in torch._C._aoti.unsafe_alloc_void_ptrs_from_tensors(inputs)]  # noqa: SLF001
        results = (ctypes.c_void_p * self._outputs)()
        counts = ctypes.c_size_t(len(inputs)), ctypes.c_size_t(self._outputs)
        self._check(self._run(self._container, handles, counts[0], results, counts[1], None, None))
        capsules = [_capsule_of(p, None, None) for p in results if p]
        tensors = iter(torch._C._aoti.alloc_tensors_by_stealing_from_void_ptrs(capsules))  # noqa: SLF001
        return [next(tensors) if p else None for p in results]
