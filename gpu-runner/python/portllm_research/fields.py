"""Reads typed values out of JSON or YAML, so that what is wrong is said by its name."""

from collections.abc import Sequence
from typing import Any

from .failure import Code, Failure


class Fields:
    """A mapping of which every key must be asked for: `end` refuses the ones that were not.

    `where` names it in messages; keys that are null count as missing.
    """

    def __init__(self, value: Any, where: str, code: Code = "bad_config") -> None:
        self.where = where
        self._code: Code = code
        if not isinstance(value, dict):
            raise self.wrong(f"{where} is not a mapping.")
        self._values: dict[Any, Any] = value
        self._asked: set[str] = set()

    def wrong(self, message: str) -> Failure:
        return Failure(self._code, message)

    def has(self, key: str) -> bool:
        return self._values.get(key) is not None

    def any(self, key: str, default: Any = ...) -> Any:
        self._asked.add(key)
        value = self._values.get(key)
        if value is not None:
            return value
        if default is ...:
            raise self.wrong(f"{self.where} has no {key}, which is needed.")
        return default

    def text(self, key: str, default: Any = ...) -> Any:
        return self._typed(key, default, str, "text")

    def flag(self, key: str, default: Any = ...) -> Any:
        return self._typed(key, default, bool, "true or false")

    def number(self, key: str, default: Any = ..., *, least: float = 0.0) -> Any:
        value = self.any(key, default)
        if value is default:
            return value
        if isinstance(value, str):
            # YAML reads 1e-4 as text: its numbers need a point.
            try:
                value = float(value)
            except ValueError:
                pass
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < float("inf"):
            raise self.wrong(f"{key} of {self.where} is {value!r}; it has to be a number of at least {least:g}.")
        return float(value)

    def whole(self, key: str, default: Any = ..., *, least: int = 0) -> Any:
        value = self.any(key, default)
        if value is default:
            return value
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.wrong(f"{key} of {self.where} is {value!r}; it has to be a whole number of at least {least}.")
        return value

    def choice(self, key: str, choices: Sequence[Any], default: Any = ...) -> Any:
        value = self.any(key, default)
        if value is not default and value not in choices:
            raise self.wrong(f"{key} of {self.where} is {value!r}; it has to be one of {', '.join(map(str, choices))}.")
        return value

    def texts(self, key: str, default: Any = ...) -> Any:
        value = self.any(key, default)
        if value is not default and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise self.wrong(f"{key} of {self.where} is {value!r}; it has to be a list of texts.")
        return value

    def inner(self, key: str) -> "Fields":
        return Fields(self.any(key), f"{key} of {self.where}", self._code)

    def ignore(self, *keys: str) -> None:
        self._asked.update(keys)

    def end(self, hint: str = "") -> None:
        unknown = sorted(str(key) for key in self._values if key not in self._asked)
        if unknown:
            names = ", ".join(unknown)
            raise self.wrong(
                f"{self.where} has {'keys' if len(unknown) > 1 else 'a key'} that {'are' if len(unknown) > 1 else 'is'} not known here: {names}.{hint}"
            )

    def _typed(self, key: str, default: Any, kind: type, words: str) -> Any:
        value = self.any(key, default)
        if value is not default and not isinstance(value, kind):
            raise self.wrong(f"{key} of {self.where} is {value!r}; it has to be {words}.")
        return value
