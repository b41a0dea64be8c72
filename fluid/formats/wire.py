"""The protobuf wire format, as far as Fluid's messages need it: varints, 32-bit, 64-bit and length-delimited fields.

A message is handled as a list of `(field number, wire type, value)`; `encode(fields(data)) == data` for messages
written by protobuf. Reading the wire directly keeps the 2018 schema independent of whichever protobuf package is
installed.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Iterable, Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

Field = tuple[int, int, int | bytes]


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Return the unsigned varint at `position` and the position after it.

    Raises ValueError if it is cut off or too long.
    """
    result = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise ValueError("the message ends inside a number")
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & (2**64 - 1), position
    raise ValueError("a number is longer than 10 bytes")


def write_varint(value: int) -> bytes:
    """Encode an integer; negative ones as 64-bit two's complement, as protobuf does."""
    value &= 2**64 - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def signed(value: int) -> int:
    """Read an unsigned 64-bit varint as the signed integer it stands for."""
    return value - 2**64 if value >> 63 else value


def fields(data: bytes) -> Iterator[Field]:
    """Yield the fields of a message: int for varints, bytes for everything else.

    Raises ValueError where it is malformed.
    """
    position = 0
    while position < len(data):
        key, position = read_varint(data, position)
        number, wire_type = key >> 3, key & 7
        if number == 0:
            raise ValueError("field number 0")
        if wire_type == VARINT:
            value, position = read_varint(data, position)
            yield number, wire_type, value
            continue
        if wire_type == BYTES:
            size, position = read_varint(data, position)
        elif wire_type in (FIXED64, FIXED32):
            size = 8 if wire_type == FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire_type}")
        if size > len(data) - position:
            raise ValueError(f"field {number} says {size} bytes, {len(data) - position} are left")
        yield number, wire_type, data[position : position + size]
        position += size


def number_in(value: int | bytes) -> int:
    """The number that a field holds. Raises ValueError if it holds bytes."""
    if not isinstance(value, int):
        raise ValueError("bytes where a number belongs")
    return value


def bytes_in(value: int | bytes) -> bytes:
    """The bytes that a field holds. Raises ValueError if it holds a number."""
    if not isinstance(value, bytes):
        raise ValueError("a number where bytes belong")
    return value


def integers(wire_type: int, value: int | bytes) -> list[int]:
    """The integers of one occurrence of a repeated integer field, packed or not."""
    if wire_type == VARINT:
        return [signed(number_in(value))]
    if wire_type != BYTES:
        raise ValueError(f"an integer field of wire type {wire_type}")
    packed, numbers, position = bytes_in(value), [], 0
    while position < len(packed):
        number, position = read_varint(packed, position)
        numbers.append(signed(number))
    return numbers


def encode(message: Iterable[Field]) -> bytes:
    """The bytes of a message given as fields."""
    out = bytearray()
    for number, wire_type, value in message:
        out += write_varint(number << 3 | wire_type)
        if wire_type == VARINT:
            out += write_varint(number_in(value))
        elif wire_type == BYTES:
            out += write_varint(len(bytes_in(value))) + bytes_in(value)
        else:
            out += bytes_in(value)
    return bytes(out)
