"""Reads protobuf's text format without a schema.

Every fork of Caffe adds fields to caffe.proto. Without a schema all of their files parse; the price is that types and
defaults are the reader's business, so ``Message`` has one getter a type, each of which names file, line and field when
the value does not fit.

Format: https://protobuf.dev/reference/protobuf/textformat-spec/
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import ConvertError, check_is_file_itself

MAX_BYTES = 16 << 20  # the largest published prototxt is below 1 MiB
MAX_DEPTH = 100  # protobuf's own limit
MAX_DIGITS = 400  # longer literals overflow every numeric type of protobuf

_TOKEN = re.compile(
    r"""(?P<space>\s+|\#[^\n]*)
      | (?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
      | (?P<number>[-+]?(?:0[xX][0-9a-fA-F]+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?[fF]?)(?![\w.]))
      | (?P<name>-?[A-Za-z_][A-Za-z0-9_]*)
      | (?P<sign>[{}<>:;,\[\]./])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_ESCAPED = {"n": b"\n", "t": b"\t", "r": b"\r", "a": b"\a", "b": b"\b", "f": b"\f", "v": b"\v"}


class Symbol(str):
    """A bare word: an enumeration value, ``true``, ``inf``."""


def is_infinite(value: Any) -> bool:
    """Whether a value is the word for an infinity."""
    return isinstance(value, Symbol) and value.lower().lstrip("-") in ("inf", "infinity")


class Message:
    """A message: field name -> list of values (int, float, str, Symbol or Message) in file order.

    ``where`` says where it stands, for error messages. ``used`` collects the fields that were asked for, so that what
    nobody asked for (a misspelt field) can be reported.
    """

    def __init__(self, where: str = "", fields: dict[str, list[Any]] | None = None):
        self.where = where
        self.fields: dict[str, list[Any]] = fields if fields is not None else {}
        self.used: set[str] = set()

    def __contains__(self, name: str) -> bool:
        self.used.add(name)
        return bool(self.fields.get(name))

    def values(self, name: str) -> list[Any]:
        """All values of a field as they were written."""
        self.used.add(name)
        return self.fields.get(name, [])

    def _fail(self, name: str, value: Any, expected: str) -> ConvertError:
        shown = "a message" if isinstance(value, Message) else repr(value)[:60]
        return ConvertError(f"{self.where}: {name} must be {expected}, but is {shown}")

    def _integer(self, name: str, value: Any) -> int:
        if not isinstance(value, int) or not -(1 << 63) <= value < 1 << 63:
            raise self._fail(name, value, "an integer of 64 bits")
        return value

    def _number(self, name: str, value: Any) -> float:
        if is_infinite(value):
            return float(value)
        if isinstance(value, (int, float)):
            try:
                return float(value)
            except OverflowError:
                pass
        raise self._fail(name, value, "a number (nan is none)")

    def _text(self, name: str, value: Any) -> str:
        if not isinstance(value, str) or isinstance(value, Symbol):
            raise self._fail(name, value, "a quoted string")
        return value

    def _message(self, name: str, value: Any) -> Message:
        if not isinstance(value, Message):
            raise self._fail(name, value, "a message in braces")
        return value

    def integers(self, name: str) -> list[int]:
        return [self._integer(name, value) for value in self.values(name)]

    def integer(self, name: str, default: int | None = None) -> int:
        """The last value of an integer field; without a default the field is required."""
        return self._one(name, self.integers(name), default)

    def numbers(self, name: str) -> list[float]:
        return [self._number(name, value) for value in self.values(name)]

    def number(self, name: str, default: float | None = None) -> float:
        return self._one(name, self.numbers(name), default)

    def texts(self, name: str) -> list[str]:
        return [self._text(name, value) for value in self.values(name)]

    def text(self, name: str, default: str | None = None) -> str:
        return self._one(name, self.texts(name), default)

    def messages(self, name: str) -> list[Message]:
        return [self._message(name, value) for value in self.values(name)]

    def message(self, name: str) -> Message:
        """The last message of that name, or an empty one."""
        found = self.messages(name)
        return found[-1] if found else Message(f"{self.where}, {name}")

    def flag(self, name: str, default: bool) -> bool:
        result = default
        for value in self.values(name):
            word = str(value).lower()
            if isinstance(value, Message) or word not in ("true", "false", "t", "f", "0", "1"):
                raise self._fail(name, value, "true or false")
            result = word in ("true", "t", "1")
        return result

    def choice(self, name: str, options: Sequence[str], default: str) -> str:
        """An enumeration value, written as its name or as its number (the position in ``options``)."""
        result = default
        for value in self.values(name):
            if isinstance(value, int) and 0 <= value < len(options):
                value = options[value]
            if not isinstance(value, str) or value not in options:
                raise self._fail(name, value, "one of " + ", ".join(option for option in options if option))
            result = str(value)
        return result

    def _one(self, name: str, values: list[Any], default: Any) -> Any:
        if values:
            return values[-1]
        if default is None:
            raise ConvertError(f"{self.where}: the field {name} is missing")
        return default


def read_bytes(path: str | Path) -> bytes:
    """The content of a text file. Raises ConvertError if there is more than any has; a device never ends."""
    with open(path, "rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ConvertError(f"{path}: more than {MAX_BYTES:,} bytes, and not the text that belongs there")
    return content


def read_prototxt(path: str | Path) -> Message:
    """Reads a text-format file. Raises ConvertError with file and line for what cannot be read."""
    content = read_bytes(path)
    check_is_file_itself(path, content[:64])
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ConvertError(f"{path}: text in UTF-16, as Windows writes it with `>`; save it as UTF-8")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        if b"\0" in content:
            raise ConvertError(
                f"{path}: binary data; is this the .caffemodel? The .prototxt (text) comes first"
            ) from None
        text = content.decode("latin-1")
    return parse_prototxt(text, str(path))


def parse_prototxt(text: str, source: str = "prototxt") -> Message:
    """Parses text format. Raises ConvertError that names ``source`` and the line."""
    return _Parser(text.removeprefix("\ufeff"), source).message(None, Message(source), 0)


class _Parser:
    def __init__(self, text: str, source: str):
        self.source = source
        self.line = 1
        self._tokens = self._scan(text)
        self.kind, self.token = next(self._tokens)

    def _scan(self, text: str):
        position, length = 0, len(text)
        while position < length:
            match = _TOKEN.match(text, position)
            if match is None:
                raise self.error(f"cannot read {text[position : position + 20]!r}")
            position = match.end()
            if match.lastgroup != "space":
                yield match.lastgroup, match.group()
            self.line += match.group().count("\n")
        yield "end", ""

    def error(self, what: str) -> ConvertError:
        return ConvertError(f"{self.source}:{self.line}: {what}")

    def advance(self) -> str:
        token = self.token
        self.kind, self.token = next(self._tokens)
        return token

    def message(self, closing: str | None, result: Message, depth: int) -> Message:
        if depth > MAX_DEPTH:
            raise self.error(f"messages are nested more than {MAX_DEPTH} deep")
        while True:
            if self.token == closing and self.kind == "sign":
                self.advance()
                return result
            if self.kind == "end":
                if closing is None:
                    return result
                raise self.error(f"the file ends inside a message; a {closing!r} is missing")
            if self.token in (";", ",") and self.kind == "sign":
                self.advance()
                continue
            self.field(result, depth)

    def field(self, result: Message, depth: int) -> None:
        name = self.field_name()
        colon = self.token == ":" and self.kind == "sign"
        if colon:
            self.advance()
        values = result.fields.setdefault(name, [])
        if self.token == "[" and self.kind == "sign":
            self.advance()
            while not (self.token == "]" and self.kind == "sign"):
                values.append(self.value(name, colon, depth))
                if self.token == "," and self.kind == "sign":
                    self.advance()
                elif self.token != "]":
                    raise self.error(f"expected , or ] in the list {name}, found {self.token[:20]!r}")
            self.advance()
        else:
            values.append(self.value(name, colon, depth))

    def field_name(self) -> str:
        if self.token == "[" and self.kind == "sign":  # an extension: [package.field]
            parts = []
            self.advance()
            while self.kind == "name" or self.token in (".", "/"):
                parts.append(self.advance())
            if self.token != "]":
                raise self.error("expected ] after the name of an extension")
            self.advance()
            return "".join(parts)
        if self.kind != "name" or self.token.startswith("-"):
            raise self.error(f"expected the name of a field, found {self.token[:20]!r}")
        return self.advance()

    def value(self, name: str, colon: bool, depth: int) -> Any:
        if self.kind == "sign" and self.token in "{<":
            closing = "}" if self.token == "{" else ">"
            inner = Message(f"{self.source}:{self.line}, {name}")
            self.advance()
            return self.message(closing, inner, depth + 1)
        if not colon:
            raise self.error(f"expected : or {{ after {name}, found {self.token[:20]!r}")
        if self.kind == "string":
            parts = []
            while self.kind == "string":  # adjacent strings are one string
                parts.append(_unescape(self.advance()[1:-1]))
            return b"".join(parts).decode("utf-8", "surrogateescape")
        if self.kind == "number":
            return self.number(self.advance())
        if self.kind == "name":
            return Symbol(self.advance())
        raise self.error(f"expected a value for {name}, found {self.token[:20]!r}")

    def number(self, token: str) -> int | float:
        if len(token) > MAX_DIGITS:
            raise self.error(f"a number of {len(token)} characters")
        digits = token.lstrip("+-")
        sign = -1 if token.startswith("-") else 1
        if digits[:2] in ("0x", "0X"):
            return sign * int(digits, 16)
        if digits.isdigit():
            octal = len(digits) > 1 and digits[0] == "0" and not set(digits) & set("89")
            return sign * int(digits, 8 if octal else 10)
        return float(token.rstrip("fF"))


def _unescape(body: str) -> bytes:
    def one(match: re.Match[str]) -> bytes:
        octal, hexadecimal, short, long, character = match.groups()
        if octal:
            return bytes([int(octal, 8) & 255])
        if hexadecimal:
            return bytes([int(hexadecimal, 16)])
        if short or long:
            code = int(short or long, 16)
            return chr(code if code < 0x110000 else 0xFFFD).encode("utf-8", "surrogatepass")
        return _ESCAPED.get(character, character.encode())

    parts, position = [], 0
    for match in _ESCAPE.finditer(body):
        parts += [body[position : match.start()].encode(), one(match)]
        position = match.end()
    return b"".join([*parts, body[position:].encode()])


def format_message(message: Message, indent: int = 0) -> str:
    """The text format of a message; what ``parse_prototxt`` reads back."""
    pad, lines = "  " * indent, []
    for name, values in message.fields.items():
        for value in values:
            if isinstance(value, Message):
                lines.append(f"{pad}{name} {{\n{format_message(value, indent + 1)}{pad}}}\n")
            elif isinstance(value, str) and not isinstance(value, Symbol):
                lines.append(f"{pad}{name}: {_quote(value)}\n")
            else:
                lines.append(f"{pad}{name}: {value}\n")
    return "".join(lines)


def _quote(text: str) -> str:
    data = text.encode("utf-8", "surrogateescape")
    plain = (chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}" for byte in data)
    return '"' + "".join(plain) + '"'
