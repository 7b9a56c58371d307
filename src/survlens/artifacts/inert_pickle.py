"""Reads a pickle as data: nothing in it is imported, called or executed.

A pickle is a program for a small stack machine. This machine knows the operations that containers, numbers, texts and
bytes need, and no other. What a pickle would import is looked up in an exact list of names, each of which stands for a
function of survlens that turns its arguments into plain data. Anything else is refused before it has an effect. Nothing
recurses, so depth costs memory only, and every step is bounded by the size of the file.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable, Mapping
from typing import BinaryIO, Protocol

from survlens.core.errors import CorruptFileError

Make = Callable[[tuple[object, ...]], object]
"""What a name of the list makes of its arguments; raises ValueError where they do not fit."""

MOST_OPERATIONS = 1_000_000
"""Operations of one pickle; the checkpoint of a network has some ten thousand."""


class Record:
    """An object of a pickle that was not built: its kind, the arguments it was called with, and its state."""

    __slots__ = ("arguments", "kind", "state")

    def __init__(self, kind: str, arguments: tuple[object, ...] = ()):
        self.kind, self.arguments = kind, arguments
        self.state: object = None


class Name:
    """A name that a pickle would import, and what stands in for it; None where it may only be mentioned."""

    __slots__ = ("make", "text")

    def __init__(self, text: str, make: Make | None):
        self.text, self.make = text, make


class BytesSource(Protocol):
    """What bytes are read from: a file, or bytes in memory."""

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes."""
        ...

    def readline(self, size: int = -1, /) -> bytes:
        """Bytes to the end of the line, at most `size`."""
        ...

    def tell(self) -> int:
        """Bytes read so far."""
        ...


def read_inert(
    file: BytesSource | BinaryIO, names: Mapping[str, Make | None], *, size: int, persistent: Make | None = None
) -> object:
    """The data in the next pickle of `file`, written with protocol 2 to 5.

    Args:
        file: Read from where it stands to the end of the pickle.
        names: Exact list of "module name" that the pickle may mention, and what stands in for each.
        size: Bytes of the whole file; nothing that claims to be longer is read.
        persistent: What stands in for a persistent identifier; without it they are refused.

    Raises:
        CorruptFileError: If the pickle is damaged, or mentions or does anything that is not allowed.
    """
    machine = _Machine(names, persistent)
    try:
        for count, (operation, argument, place) in enumerate(pickletools.genops(_Bounded(file, size))):  # type: ignore[arg-type]
            if count >= MOST_OPERATIONS:
                raise ValueError(f"more than {MOST_OPERATIONS} operations")
            step = _STEPS.get(operation.name)
            if step is None:
                raise ValueError(f"the operation {operation.name} at byte {place}, which no checkpoint needs")
            step(machine, argument)
        return machine.result()
    except CorruptFileError:
        raise
    except (ValueError, TypeError, IndexError, KeyError, EOFError, OverflowError, MemoryError, struct.error) as error:
        raise CorruptFileError(
            f"the pickle must hold plain data of a known layout; got {error or type(error).__name__}. "
            "Nothing in it was executed. Get the file from its author again, or as safetensors."
        ) from error


class _Bounded:
    """Refuses to make room for more bytes than the file has."""

    def __init__(self, file: BytesSource | BinaryIO, size: int):
        self._file, self._size, self.tell = file, size, file.tell

    def read(self, length: int) -> bytes:
        if length > self._size:
            raise ValueError(f"{length} bytes claimed in a file of {self._size}")
        return self._file.read(length)

    def readline(self) -> bytes:
        return self._file.readline(_LONGEST_LINE)


_LONGEST_LINE = 1000


class _Machine:
    """The stack, the marks on it, and the objects that are referred to again."""

    def __init__(self, names: Mapping[str, Make | None], persistent: Make | None):
        self.names, self.persistent = names, persistent
        self.stack: list[object] = []
        self.marked: list[list[object]] = []
        self.memo: dict[int, object] = {}

    def result(self) -> object:
        if self.marked or len(self.stack) != 1:
            raise ValueError("a pickle that does not end with one object")
        return self.stack.pop()

    def since_mark(self) -> list[object]:
        items, self.stack = self.stack, self.marked.pop()
        return items

    def mark(self, _: object) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def push(self, value: object) -> None:
        self.stack.append(value)

    def protocol(self, version: int) -> None:
        if not 2 <= version <= 5:
            raise ValueError(f"protocol {version}")

    def keep(self, place: int | None) -> None:
        self.memo[len(self.memo) if place is None else place] = self.stack[-1]

    def recall(self, place: int) -> None:
        self.stack.append(self.memo[place])

    def pop(self, _: object) -> None:
        self.stack.pop()

    def pop_mark(self, _: object) -> None:
        self.since_mark()

    def tuple_of(self, length: int) -> None:
        items = self.stack[len(self.stack) - length :]
        if len(items) != length:
            raise ValueError("too few objects for a tuple")
        del self.stack[len(self.stack) - length :]
        self.stack.append(tuple(items))

    def tuple_since_mark(self, _: object) -> None:
        items = self.since_mark()
        self.stack.append(tuple(items))

    def append(self, _: object) -> None:
        self._extend([self.stack.pop()])

    def appends(self, _: object) -> None:
        self._extend(self.since_mark())

    def _extend(self, items: list[object]) -> None:
        if type(self.stack[-1]) is not list:
            raise ValueError("items for something that is no list")
        self.stack[-1].extend(items)

    def set_item(self, _: object) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def set_items(self, _: object) -> None:
        self._set(self.since_mark())

    def _set(self, items: list[object]) -> None:
        # Texts only: their hash neither recurses nor can be made to collide.
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2 or any(type(key) is not str for key in items[::2]):
            raise ValueError("a dictionary whose keys are no texts")
        target.update(zip(items[::2], items[1::2], strict=True))  # type: ignore[arg-type]

    def add_items(self, _: object) -> None:
        items, target = self.since_mark(), self.stack[-1]
        self._extend_set(target, items)

    def _extend_set(self, target: object, items: list[object]) -> None:
        if type(target) is not set or any(type(item) is not str for item in items):
            raise ValueError("a set of something else than texts")
        target.update(items)

    def name(self, text: str) -> None:
        if text not in self.names:
            raise ValueError(f"the name {text!r:.200}, which is not on the list of what a checkpoint may mention")
        self.stack.append(Name(text, self.names[text]))

    def name_from_stack(self, _: object) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if type(name) is not str or type(module) is not str:
            raise ValueError("a name that is no text")
        self.name(f"{module} {name}")

    def call(self, _: object) -> None:
        arguments, called = self.stack.pop(), self.stack.pop()
        if type(called) is not Name or called.make is None or type(arguments) is not tuple:
            raise ValueError("a call of something that is not on the list")
        self.stack.append(called.make(arguments))

    def build(self, _: object) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is not Record or target.state is not None:
            raise ValueError("a state for something that has none")
        target.state = state

    def identifier(self, _: object) -> None:
        if self.persistent is None:
            raise ValueError("a persistent identifier")
        self.stack.append(self.persistent((self.stack.pop(),)))

    def nothing(self, _: object) -> None:
        """Frames and the end need no step."""


_PUSHED = (
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
)

_STEPS: dict[str, Callable[[_Machine, object], None]] = {
    **dict.fromkeys(_PUSHED, _Machine.push),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_SET": lambda machine, _: machine.push(set()),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "TUPLE": _Machine.tuple_since_mark,
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "ADDITEMS": _Machine.add_items,
    "PROTO": _Machine.protocol,  # type: ignore[dict-item]
    "FRAME": _Machine.nothing,
    "STOP": _Machine.nothing,
    "MEMOIZE": _Machine.keep,  # type: ignore[dict-item]
    "BINPUT": _Machine.keep,  # type: ignore[dict-item]
    "LONG_BINPUT": _Machine.keep,  # type: ignore[dict-item]
    "BINGET": _Machine.recall,  # type: ignore[dict-item]
    "LONG_BINGET": _Machine.recall,  # type: ignore[dict-item]
    "GLOBAL": _Machine.name,  # type: ignore[dict-item]
    "STACK_GLOBAL": _Machine.name_from_stack,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.identifier,
}
"""The operations that are known; an operation that is not here is refused."""
