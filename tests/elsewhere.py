"""A device that is not there: tensors that are moved to it stay on the CPU, and behave as if they lay on a GPU.

So a whole training can be seen to keep its tensors together, without a GPU and with real numbers. PyTorch's own fakes,
FakeTensorMode and `meta`, hold no numbers, so a training stops at the first loss that it looks at; and under the
former, with PyTorch 2.15, no module can be moved, and recurrent layers ask for a driver.

Two modes do it. The inner sees every operation of tensors, those of a backward pass too: what comes of tensors that are
elsewhere is elsewhere, and tensors on both sides in one operation are an error, as for a GPU, where only single numbers
and numbers of rows may come from the CPU. The outer sees what a programme asks of tensors: to move them, to make them
elsewhere, to tell their device. As name of the device stands `meta`, one that PyTorch has no special ways for.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

NAME: Final = "meta"
_THERE: Final = torch.device(NAME)
_DEVICE: Final = torch.Tensor.device.__get__
_TO_NUMPY: Final = (torch.Tensor.numpy, torch.Tensor.__array__)
_DRAWN: Final = (torch.rand, torch.randn, torch.randint, torch.randperm)
_aten: Final = torch.ops.aten
_ROWS_FROM_CPU: Final = (_aten.index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_)
"""Of a tensor, by numbers of rows that may lie on either side, values where some are put."""


class Mixed(AssertionError):
    """Tensors of two devices met, or one was used where it cannot be."""


class Elsewhere:
    """What lies there, and where each kind of operation was carried out."""

    def __init__(self) -> None:
        # By address. A weak reference keeps the address from being given to another storage.
        self._storages: dict[int, StorageWeakRef] = {}
        self.carried_out: dict[str, set[bool]] = defaultdict(set)
        """Name of an operation -> whether there."""

    def holds(self, tensor: Tensor) -> bool:
        """Whether a tensor lies there."""
        return tensor.untyped_storage()._cdata in self._storages

    def put(self, tensor: Tensor) -> Tensor:
        """Say that a tensor lies there, and every view of it."""
        storage = tensor.untyped_storage()
        self._storages[storage._cdata] = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
        return tensor

    def take(self, tensor: Tensor) -> Tensor:
        """Say that it does not."""
        self._storages.pop(tensor.untyped_storage()._cdata, None)
        return tensor

    def move(self, tensor: Tensor, target: torch.device, dtype: torch.dtype | None) -> Tensor:
        """The tensor there or on the CPU: itself if it is, else a copy."""
        to = target == _THERE
        moved = tensor if dtype is None else tensor.to(dtype)
        if to == self.holds(moved):
            return moved
        return self.put(moved.clone()) if to else self.take(moved.clone())


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, place: Elsewhere) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.place = place

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = any(self.place.holds(tensor) for tensor in given)
        packet = func.overloadpacket
        self.place.carried_out[packet.__name__].add(there)
        if there:
            if torch.Tag.nondeterministic_seeded in func.tags:
                raise Mixed(f"{func} draws numbers elsewhere: they are to be drawn on the CPU")
            if packet is not _aten.copy_:  # the one that moves
                self._together(func, [args[0], *args[2:3]] if packet in _ROWS_FROM_CPU else given)
        known = {tensor.untyped_storage()._cdata for tensor in given}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if there and isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in known:
                self.place.put(tensor)
        return out

    def _together(self, func: Any, given: list[Tensor]) -> None:
        if any(not self.place.holds(tensor) and tensor.dim() > 0 for tensor in given):
            sides = ", ".join(f"{tuple(t.shape)} {'there' if self.place.holds(t) else 'on the CPU'}" for t in given)
            raise Mixed(f"{func} got tensors of two devices: {sides}")


class _Requests(TorchFunctionMode):
    def __init__(self, place: Elsewhere) -> None:
        super().__init__()
        self.place = place

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        mine = bool(args) and isinstance(args[0], Tensor) and self.place.holds(args[0])
        if func == _DEVICE:
            return _THERE if mine else func(*args)
        if func is torch.Tensor.cpu:
            return self.place.move(args[0], torch.device("cpu"), None)
        if func is torch.Tensor.to:
            target, dtype, _, _ = torch._C._nn._parse_to(*args[1:], **kwargs)
            return func(*args, **kwargs) if target is None else self.place.move(args[0], target, dtype)
        if func in _TO_NUMPY and mine:
            raise Mixed("a tensor elsewhere was asked for as an array: only one on the CPU can be")
        made = "device" in kwargs and kwargs["device"] is not None and torch.device(kwargs["device"]) == _THERE
        if made and func in _DRAWN:
            raise Mixed(f"{func} draws numbers elsewhere: they are to be drawn on the CPU")
        out = func(*args, **(kwargs | {"device": "cpu"} if made else kwargs))
        # A deep copy is one of the storage and no operation, so the mode within does not see it.
        return self.place.put(out) if made or (mine and func is torch.Tensor.__deepcopy__) else out


@contextmanager
def elsewhere() -> Iterator[Elsewhere]:
    """Within it `NAME` is a device that tensors can be moved to."""
    place = Elsewhere()
    with _Requests(place), _Operations(place):
        yield place
