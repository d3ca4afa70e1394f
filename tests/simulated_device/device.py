"""A device of our own, `sim:0`, whose tensors hold CPU tensors and refuse to meet any.

Most of what breaks on an accelerator shows here without one: an operation with tensors of two devices raises
as on CUDA, and each read by the host, which would wait for the device, is counted. `install()` changes
torch for the rest of the process, so tests use it in a process of its own.

A tensor on the device is a `SimulatedTensor`, a wrapper without storage. Operations on it are computed by the
CPU's kernels on what it wraps, so results are those of the CPU, to the bit. Views wrap views.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_any, tree_flatten, tree_map_only
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "sim"
ROOT = Path(__file__).parents[2]
PACKAGES = tuple(str(ROOT / package) for package in ("domainbed", "domainbed_gs"))

_READS = frozenset(
    {
        "_local_scalar_dense",
        "is_nonzero",
        "equal",
        "nonzero",
        "masked_select",
        "_unique",
        "_unique2",
        "unique_dim",
        "unique_consecutive",
        "bincount",
        "_linalg_check_errors",
    }
)
"""Operations whose result, or its shape, the host needs."""

_INDEXED = frozenset({"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"})
"""Operations whose indices may be on the CPU. Indices that are masks are read by the host."""

_COPIES = frozenset({"copy_", "_to_copy", "_copy_from", "_copy_from_and_resize"})
"""Operations between devices."""


class MixedDevices(RuntimeError):
    """An operation has tensors of the device and of the CPU."""


READS: list[str] = []
"""The reads by the host, in order: "file:line operation", of the line of this project."""


def _read(operation: str) -> None:
    frames = [frame for frame in traceback.extract_stack() if frame.filename.startswith(PACKAGES)]
    where = f"{Path(frames[-1].filename).relative_to(ROOT)}:{frames[-1].lineno}" if frames else "elsewhere"
    READS.append(f"{where} {operation}")


@contextlib.contextmanager
def counted_reads() -> Iterator[list[str]]:
    """The list of the reads within the context, complete at its end."""
    before, found = len(READS), []
    yield found
    found += READS[before:]


class SimulatedTensor(torch.Tensor):
    """A tensor on the device. `inner` is the CPU tensor that it wraps."""

    inner: torch.Tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor, requires_grad: bool = False) -> SimulatedTensor:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=torch.device(NAME, 0),
            requires_grad=requires_grad,
        )
        made.inner = inner
        return made

    def __repr__(self, **_: Any) -> str:
        return f"SimulatedTensor({self.inner!r})"

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        if id(self) in memo:
            return memo[id(self)]
        copied = self.detach().clone().requires_grad_(self.requires_grad)
        if hasattr(self, "_is_param"):
            copied._is_param = self._is_param
        if self.grad is not None:
            copied.grad = self.grad.clone()
        memo[id(self)] = copied
        return copied

    def __reduce_ex__(self, protocol: int) -> Any:
        return self.inner.detach().requires_grad_(self.requires_grad).__reduce_ex__(protocol)

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Any], *_: Any) -> SimulatedTensor:
        return SimulatedTensor(inner["inner"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(func, args, kwargs or {})


class _Factories(TorchDispatchMode):
    """Sees operations without tensors of the device: factories with `device=`, and copies to it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _is_here(kwargs.get("device")) or tree_any(_is_simulated, (args, kwargs)):
            return dispatch(func, args, kwargs)
        return func(*args, **kwargs)


def _is_simulated(value: object) -> bool:
    return isinstance(value, SimulatedTensor)


def _is_here(device: object) -> bool:
    return isinstance(device, torch.device) and device.type == NAME


def dispatch(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute an operation on what tensors of the device wrap.

    Raises: MixedDevices.
    """
    if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
        # In inference mode, operations arrive before they are taken apart.
        with _Factories():
            return func.decompose(*args, **kwargs)
    name = func._schema.name.partition("::")[2]
    _check_devices(name, args, kwargs)
    to_host = _goes_to_host(name, args, kwargs)
    _count_reads(name, args, kwargs, to_host)
    wrappers: dict[int, SimulatedTensor] = {}

    def unwrap(tensor: SimulatedTensor) -> torch.Tensor:
        wrappers[id(tensor.inner)] = tensor
        return tensor.inner

    inner_args, inner_kwargs = tree_map_only(SimulatedTensor, unwrap, (args, kwargs))
    if _is_here(inner_kwargs.get("device")):
        inner_kwargs = {**inner_kwargs, "device": torch.device("cpu")}
    with _generator_of_device(func, kwargs):
        result = func(*inner_args, **inner_kwargs)
    if to_host:
        return args[0] if name == "copy_" else result

    def wrap(tensor: torch.Tensor) -> SimulatedTensor:
        known = wrappers.get(id(tensor))  # operations in place return their argument
        if known is not None:
            return known
        with torch.inference_mode(False):  # views of parameters need a version counter
            return SimulatedTensor(tensor)

    result = tree_map_only(torch.Tensor, wrap, result)
    return return_and_correct_aliasing(func, args, kwargs, result)


def _check_devices(name: str, args: Any, kwargs: dict[str, Any]) -> None:
    """Raise MixedDevices if a tensor of the CPU meets one of the device. Numbers (0-d) may."""
    if name in _COPIES:
        return
    if name in _INDEXED and _is_simulated(args[0]):
        args = (args[0], *args[2:])  # without the indices
    tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, torch.Tensor)]
    foreign = [tensor for tensor in tensors if not _is_simulated(tensor) and tensor.dim() > 0]
    if foreign and len(foreign) < len(tensors):
        raise MixedDevices(f"{name} has tensors of {NAME} and one of the CPU, of shape {foreign[0].shape}")
    if tensors and not _is_simulated(tensors[0]) and name.endswith("_"):
        raise MixedDevices(f"{name} writes tensors of {NAME} into one of the CPU")


def _goes_to_host(name: str, args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether the result of an operation on tensors of the device is on the CPU."""
    if name == "copy_":
        return not _is_simulated(args[0])
    device = kwargs.get("device")
    return (isinstance(device, torch.device) and device.type == "cpu") or name == "_local_scalar_dense"


def _count_reads(name: str, args: Any, kwargs: dict[str, Any], to_host: bool) -> None:
    if name in _INDEXED:
        indices = [index for index in args[1] if _is_simulated(index)]
        reads = any(index.dtype in (torch.bool, torch.uint8) for index in indices)
    elif name == "repeat_interleave":
        reads = kwargs.get("output_size") is None
    else:
        reads = name in _READS or (to_host and name in _COPIES)
    if reads:
        _read(name)


class Backend:
    """What `torch.sim` offers, as `torch.cuda` does for its device.

    Attributes:
        own_generator: whether the device has a generator of its own. By default the CPU's generator draws for
            it, so that an algorithm draws the same numbers on both.
    """

    def __init__(self) -> None:
        self.own_generator = False
        self.generator = torch._C.Generator()

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed(self, seed: int) -> None:
        self.generator.manual_seed(int(seed))

    def manual_seed_all(self, seed: int) -> None:
        self.manual_seed(seed)

    def get_rng_state(self, device: object = None) -> torch.Tensor:
        return self.generator.get_state()

    def set_rng_state(self, state: torch.Tensor, device: object = None) -> None:
        self.generator.set_state(state)

    def get_rng_state_all(self) -> list[torch.Tensor]:
        return [self.get_rng_state()]

    def set_rng_state_all(self, states: list[torch.Tensor]) -> None:
        self.set_rng_state(states[0])

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def synchronize(self, device: object = None) -> None:
        pass

    def mem_get_info(self, device: object = None) -> tuple[int, int]:
        return 2**30, 2**31

    def max_memory_allocated(self, device: object = None) -> int:
        return 2**20

    def get_device_name(self, device: object = None) -> str:
        return "simulated"


BACKEND = Backend()


@contextlib.contextmanager
def _generator_of_device(func: Any, kwargs: dict[str, Any]) -> Iterator[None]:
    """Within the context, the CPU's generator is in the state of the device's, if it has one of its own."""
    draws = torch.Tag.nondeterministic_seeded in func.tags and kwargs.get("generator") is None
    if not (draws and BACKEND.own_generator):
        yield
        return
    state = torch.default_generator.get_state()
    torch.default_generator.set_state(BACKEND.generator.get_state())
    try:
        yield
    finally:
        BACKEND.generator.set_state(torch.default_generator.get_state())
        torch.default_generator.set_state(state)


class _Generator(torch._C.Generator):
    """`torch.Generator`; one for the device is the CPU's."""

    def __new__(cls, device: Any = "cpu") -> Any:
        here = torch.device(device).type == NAME
        return torch._C.Generator.__new__(cls, "cpu" if here else device)


def _tensor(data: Any, *, device: Any = None, **options: Any) -> torch.Tensor:
    """`torch.tensor`, which makes tensors without an operation that could be seen."""
    made = _torch_tensor(data, **options)
    return made if device is None else made.to(device)


_torch_tensor = torch.tensor


def install() -> None:
    """Add the device to torch, for the rest of this process."""
    _setup_privateuseone_for_python_backend(rename=NAME, backend_module=BACKEND)
    # A module keeps its parameters, so that optimizers know them, when it is moved.
    torch.__future__.set_swap_module_params_on_conversion(True)
    torch.Generator = _Generator  # type: ignore[misc]
    torch.tensor = _tensor
    _Factories().__enter__()
