"""Reads ``param_str`` of Python layers: the part of YAML, and the Python literals, that prototxts hold there.

'feat_stride': 16                                  entries, one a line or with commas
'scales': !!python/tuple [4, 8, 16]                sequences in [ ] or ( ), with YAML's tag for tuples or without
{'feat_stride': 8, 'ratios': (0.5, 1, 2)}          the same in braces
"""

from __future__ import annotations

import re
from typing import Any

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
      | (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
      | (?P<tag>!!python/\w+|!!\w+)
      | (?P<word>[A-Za-z_]\w*)
      | (?P<sign>[{}\[\](),:])
      | (?P<escape>\\n))""",
    re.VERBOSE,
)
_WORDS = {"true": True, "false": False, "none": None, "null": None}
MAX_DEPTH = 20


def parse_param_str(text: str) -> dict[str, Any]:
    """The entries by name: numbers, strings, None, truth values, lists and dictionaries. Raises ValueError."""
    body = text.strip().removeprefix("---").strip()
    reader = _Reader(body)
    result = reader.value(0) if reader.token == "{" else reader.entries("", 0)
    if reader.token:
        raise ValueError(f"cannot read {reader.token!r}")
    return result


class _Reader:
    def __init__(self, text: str):
        self.tokens = self._scan(text)
        self.kind, self.token = "", ""
        self.advance()

    def _scan(self, text: str):
        position, text = 0, text.rstrip()
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise ValueError(f"cannot read {text[position : position + 30].strip()!r}")
            position = match.end()
            if match.lastgroup not in ("tag", "escape"):
                yield match.lastgroup, match[match.lastgroup]

    def advance(self) -> str:
        token = self.token
        self.kind, self.token = next(self.tokens, ("", ""))
        return token

    def expect(self, sign: str) -> None:
        if self.token != sign:
            raise ValueError(f"expected {sign!r}, found {self.token!r}")
        self.advance()

    def entries(self, closing: str, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        while self.token != closing:
            if self.kind not in ("string", "word"):
                raise ValueError(f"expected a name, found {self.token!r}")
            name = self.advance().strip("'\"")
            self.expect(":")
            result[name] = self.value(depth + 1)
            if self.token == ",":
                self.advance()
        return result

    def value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise ValueError(f"nested more than {MAX_DEPTH} deep")
        kind, token = self.kind, self.advance()
        if token == "{":
            result = self.entries("}", depth)
            self.expect("}")
            return result
        if token in ("[", "("):
            closing, items = "]" if token == "[" else ")", []
            while self.token != closing:
                items.append(self.value(depth + 1))
                if self.token != closing:
                    self.expect(",")
            self.expect(closing)
            return items
        if kind == "number":
            return float(token) if set(token) & set(".eE") else int(token)
        if kind == "string":
            return token[1:-1]
        if kind == "word":
            return _WORDS.get(token.lower(), token)
        raise ValueError(f"expected a value, found {token!r}")
