"""Pickled parameters (`fluid.save`, `paddle.save`: `.pdparams`, `.pdopt`), read without running the pickle.

A pickle is a program that may call anything, so Python's own loader must never see a file from elsewhere. Here its
instructions are taken one at a time (`pickletools` decodes them) by an interpreter that knows dictionaries, lists,
tuples, numbers, strings and the few calls with which numpy arrays are written; whatever else a file asks for is refused
by name, and nothing is imported or called.
"""

import mmap
import os
import pickle
import pickletools
import re
import struct
from collections.abc import Callable, Mapping
from typing import IO, Any, cast

from fluid import files
from fluid.errors import WeightsError

import numpy as np

_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
_CALLS = {
    **{(module, "_reconstruct"): "reconstruct" for module in _MULTIARRAY},
    **{(module, "scalar"): "scalar" for module in _MULTIARRAY},
    **{(module, "_frombuffer"): "frombuffer" for module in _NUMERIC},
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",
    ("collections", "OrderedDict"): "dict",
    ("builtins", "bytes"): "bytes",
    ("__builtin__", "bytes"): "bytes",
    ("builtins", "tuple"): "tuple",
    ("__builtin__", "tuple"): "tuple",
}
"""(module, name) in a pickle -> the call this reader understands. These names are labels: nothing is imported."""

_PUSH = {
    *("NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2"),
    *("LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

MAX_INSTRUCTIONS = 2_000_000
"""Of a pickle; an array takes about fifty."""


class _Call(str):
    """A function the pickle names, by this reader's label for it."""


class _Dtype:
    def __init__(self, code: str):
        self.code = code
        self.byte_order: Any = "<"

    def resolve(self) -> np.dtype:
        # NumPy takes a code for a whole language.
        if not re.fullmatch(r"[<>=|]?[biufc]\d{1,2}", self.code) or self.byte_order not in ("<", ">", "=", "|"):
            raise ValueError(f"an array of {self.code!r:.40}")
        return np.dtype(self.code).newbyteorder(self.byte_order)


class _Array:
    """An array between its creation (`_reconstruct`) and the instruction that fills it."""

    value: np.ndarray | None = None


def read_pdparams(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read the arrays of a pickled dictionary of parameters.

    Entries that are not arrays (schedules, name tables) are left out; `(name, array)` pairs count as arrays.
    Raises WeightsError if the file is not a pickle, is damaged, or asks for anything beyond plain values and numpy
    arrays.
    """
    try:
        with files.open_plain(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            content = _interpret(data)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, MemoryError) as error:
        # The interpreter meets a damaged file as a missing operand, an unknown memo or a wrong type.
        raise WeightsError(
            f"{path}: not a readable file of pickled arrays ({error or type(error).__name__})."
        ) from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, not a dictionary of arrays.")
    arrays = {}
    for name, value in content.items():
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], _Array):
            value = value[1]
        if isinstance(value, _Array):
            if value.value is None:
                raise WeightsError(f"{path}: the array {name!r} has no content.")
            arrays[name] = value.value
    return arrays


def write_pdparams(path: str | os.PathLike, weights: Mapping[str, np.ndarray]) -> None:
    """Write what `paddle.load`, and `fluid.load` of 2019 on, read: a pickled dictionary (protocol 3) of numpy arrays.

    The instructions are written here because numpy 2 pickles arrays under a module name that the numpy of those years
    lacks.
    """
    with files.whole(path, WeightsError) as unfinished, open(unfinished, "wb") as file:
        file.write(b"\x80\x03}")
        for name, array in weights.items():
            array = np.ascontiguousarray(array).reshape(np.shape(array))
            data = array.tobytes()
            file.write(_text(name) + b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R")
            file.write(b"(K\x01(" + b"".join(map(_integer, array.shape)) + b"t")
            file.write(b"cnumpy\ndtype\n" + _text(array.dtype.str[1:]) + b"\x89\x88\x87R")
            file.write(b"(K\x03" + _text(array.dtype.str[0]) + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89")
            file.write(
                b"B" + struct.pack("<I", len(data)) if len(data) < 2**32 else b"\x8e" + struct.pack("<Q", len(data))
            )
            file.write(data)
            file.write(b"tbs")
        file.write(b".")
        file.flush()
        os.fsync(file.fileno())


def _text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _integer(value: int) -> bytes:
    return pickle.dumps(value, protocol=2)[2:-1]


def _interpret(data: mmap.mmap) -> Any:
    stack: list[Any] = []
    marks: list[int] = []  # heights of the stack at which open groups begin
    memo: dict[int, Any] = {}
    copied = 0

    def spend(amount: int) -> None:
        # What calls produce out of earlier values is bounded by the file's size: a file that repeats one call gets no
        # more memory.
        nonlocal copied
        copied += amount
        if copied > len(data):
            raise ValueError("it multiplies its contents")

    def pop_to_mark() -> list[Any]:
        position = marks.pop()
        items = stack[position:]
        del stack[position:]
        return items

    argument: Any
    # It reads of a file object and of a map alike.
    for number, (opcode, argument, _) in enumerate(pickletools.genops(cast(IO[bytes], data))):
        name = opcode.name
        if number == MAX_INSTRUCTIONS:
            raise ValueError(f"it has more than {MAX_INSTRUCTIONS:,} instructions")
        if name in _PUSH:
            stack.append(_CONSTANTS.get(name, argument))
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            if name == "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
            else:
                module, _, attribute = argument.partition(" ")
            if (module, attribute) not in _CALLS:
                raise ValueError(
                    f"it asks for {module}.{attribute}; only numpy arrays are admitted, and nothing was executed"
                )
            stack.append(_Call(_CALLS[module, attribute]))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(_call(function, arguments, spend))
        elif name == "BUILD":
            state = stack.pop()
            _build(stack[-1], state, spend)
        elif name in _TUPLES:
            members = tuple(stack[-_TUPLES[name] :])
            del stack[-_TUPLES[name] :]
            stack.append(members)
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "TUPLE":
            stack.append(tuple(pop_to_mark()))
        elif name == "LIST":
            stack.append(pop_to_mark())
        elif name == "DICT":
            items = pop_to_mark()
            stack.append({})
            _set_items(stack[-1], items)
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            _set_items(stack[-1], [key, value])
        elif name == "SETITEMS":
            items = pop_to_mark()
            _set_items(stack[-1], items)
        elif name == "APPEND":
            value = stack.pop()
            _extend(stack[-1], [value])
        elif name == "APPENDS":
            items = pop_to_mark()
            _extend(stack[-1], items)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"instruction {name} has no place in a file of arrays")
    raise ValueError("it ends without a STOP instruction")


def _set_items(target: Any, items: list[Any]) -> None:
    # Only text keys: hashing a nest of tuples that share their members takes exponential time.
    if type(target) is not dict or not all(isinstance(key, str) for key in items[::2]):
        raise ValueError("a dictionary whose keys are not names")
    target.update(zip(items[::2], items[1::2], strict=True))


def _extend(target: Any, items: list[Any]) -> None:
    if type(target) is not list:
        raise ValueError("items appended to something that is not a list")
    target.extend(items)


def _call(function: Any, arguments: tuple, spend: Callable[[int], None]) -> Any:
    if not isinstance(function, _Call) or type(arguments) is not tuple:
        raise ValueError("a call of something that is not a function")
    if function == "reconstruct" and arguments[0] == "ndarray":
        return _Array()
    if function == "dtype":
        return _Dtype(_as_text(arguments[0]))
    if function == "bytes" and arguments == ():
        return b""
    if function == "encode" and arguments[1:] == ("latin1",):
        spend(len(arguments[0]))
        return arguments[0].encode("latin1")
    if function == "dict":
        items: dict = {}
        spend(len(arguments[0]) if arguments else 0)
        for key, value in arguments[0] if arguments else ():
            _set_items(items, [key, value])
        return items
    if function == "tuple" and isinstance(arguments[0], (tuple, list)):
        spend(len(arguments[0]))
        return tuple(arguments[0])
    if function == "frombuffer":
        data, dtype, shape, order = arguments
        return _filled(shape, dtype, order == "F", data, spend)
    if function == "scalar":
        dtype, data = arguments
        return _filled((), dtype, False, data, spend)
    raise ValueError(f"an unknown use of {function}")


def _build(target: Any, state: Any, spend: Callable[[int], None]) -> None:
    if isinstance(target, _Dtype):
        _, byte_order, subdtype, names, fields, *_ = state
        if (subdtype, names, fields) != (None, None, None):
            raise ValueError("an array of records")
        target.byte_order = _as_text(byte_order)
    elif isinstance(target, _Array):
        shape, dtype, fortran, data = state[-4:]
        target.value = _filled(shape, dtype, fortran, data, spend).value
    else:
        raise TypeError("state for something that is not an array")


def _filled(shape: tuple, dtype: Any, fortran: Any, data: Any, spend: Callable[[int], None]) -> _Array:
    if not isinstance(dtype, _Dtype) or not all(isinstance(d, int) and d >= 0 for d in shape):
        raise ValueError("an array without a data type or shape")
    if isinstance(data, str):  # Python 2 wrote its byte strings so
        spend(len(data))
        data = data.encode("latin1")
    array = _Array()
    array.value = np.frombuffer(data, dtype.resolve()).reshape(shape, order="F" if fortran else "C")
    return array


def _as_text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)
