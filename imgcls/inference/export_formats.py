"""Formats of exported files, and their endings."""

from typing import Literal, get_args

Format = Literal["onnx", "pt2"]

ENDINGS = tuple(f".{name}" for name in get_args(Format))

ENDINGS_IN_WORDS = " or ".join(ENDINGS)
