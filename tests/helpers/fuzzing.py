"""Files as an enemy or a failing disk would make them, the same ones for the same seed."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import torch

from rose_easyedit.edits.checks import record_digest
from rose_easyedit.edits.file import FORMAT

NAMES = [
    "",
    ".",
    "..",
    "../../evil",
    "/etc/passwd",
    "C:\\evil",
    "~/evil",
    "a\0b",
    "a\nb",
    "\x1b[2J\x1b]0;evil\x07",
    "[bold]evil[/bold][/]",
    "<script>alert(1)</script>",
    "${oc.env:HOME}",
    "{}{0}{evil}",
    "%s%n",
    "__class__.__init__.__globals__",
    "targets",
    "targets.left",
    "model.embed_tokens.weight",
    "\u00b2.\u0663",
    "9" * 5000,
    "x" * 20_000,
    "\U0001f469\u200d\U0001f52c\u202e\u0301",
]
VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    2**63,
    10**40,
    1e308,
    float("nan"),
    float("inf"),
    [],
    {},
    [[]],
    [None],
    [1, "a"],
    {"a": 1},
    [[[[[[[[[[0]]]]]]]]]],
    {"": {"": {"": []}}},
    *NAMES,
]
SHAPES = [(0,), (), (1,), (0, 0), (32, 0), (3, 5), (64, 32), (1, 1, 1), (32, 1)]
DTYPES = [
    torch.float64,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.bool,
    torch.complex64,
    torch.float8_e4m3fn,
    torch.uint8,
]


def damaged(content: bytes, random: Random) -> bytes:
    """A file after an accident: cut, flipped, overwritten, moved or repeated in part."""
    data = bytearray(content)
    for _ in range(random.choice([1, 1, 1, 2, 8])):
        start = random.randrange(len(data) + 1)
        end = min(len(data), start + random.choice([1, 2, 8, 100, len(data)]))
        how = random.randrange(7)
        if how == 0:
            del data[start:]
        elif how == 1:
            del data[start:end]
        elif how == 2 and start < len(data):
            data[start] ^= 1 << random.randrange(8)
        elif how == 3:
            data[start:end] = random.randbytes(end - start)
        elif how == 4:
            data[start:end] = bytes(end - start)
        elif how == 5:
            data[start:start] = random.randbytes(random.choice([1, 8, 1000]))
        else:
            data[start:start] = data[start:end]
    return bytes(data)


def changed(tree: Any, random: Random) -> Any:
    """Plain data with one to three entries of it replaced, renamed, repeated or gone."""
    tree = json.loads(json.dumps(tree))
    for _ in range(random.choice([1, 1, 2, 3])):
        holder, key = random.choice(list(_places(tree)))
        how = random.randrange(5)
        if how <= 2:
            holder[key] = random.choice(VALUES)
        elif how == 3:
            del holder[key]
        elif isinstance(holder, dict):
            holder[random.choice(NAMES)] = holder.pop(key)
        else:
            holder.insert(key, holder[key])
        if not list(_places(tree)):
            break
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in list(entries):
        yield tree, key
        if isinstance(value, (dict, list)):
            yield from _places(value)


def rewritten_header(content: bytes, random: Random) -> bytes:
    """An edit file whose safetensors header tells lies."""
    (length,) = struct.unpack("<Q", content[:8])
    header, body = json.loads(content[8 : 8 + length]), content[8 + length :]
    if random.random() < 0.3:
        told = random.choice([0, 1, length - 1, length + 1, 10**8, 2**31, 2**63, 2**64 - 1])
        return struct.pack("<Q", told) + content[8:]
    name = random.choice([name for name in header if name != "__metadata__"])
    lies = {
        "dtype": ["F64", "I64", "BOOL", "F8_E4M3", "X", "", None, 3],
        "shape": [[], [0], [2**31, 2**31], [2**63], [-1, 2], [2**64], "32", None, [1.5]],
        "data_offsets": [[0, 2**63], [10, 0], [-1, 4], [0, 4], [], None, [2**64, 2**65]],
    }
    field = random.choice(list(lies))
    header[name][field] = random.choice(lies[field])
    if random.random() < 0.3:
        header[random.choice(NAMES)] = header.pop(name)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def resigned(record: Any, tensors: dict[str, torch.Tensor], random: Random) -> bytes:
    """An edit by somebody who knows the format: checksums are right, the content is not."""
    from safetensors.torch import save

    record, tensors = changed(record, random), dict(tensors)
    if random.random() < 0.5:
        name = random.choice(list(tensors))
        how = random.randrange(5)
        if how == 0:
            tensors[name] = torch.ones(random.choice(SHAPES))
        elif how == 1:
            tensors[name] = tensors[name].to(random.choice(DTYPES))
        elif how == 2:
            value = random.choice([float("nan"), float("inf"), 3e38, -0.0])
            tensors[name] = tensors[name].clone().index_fill_(0, torch.tensor([0]), value)
        elif how == 3:
            tensors[random.choice(NAMES) + ".left"] = tensors.pop(name)
        else:
            del tensors[name]
    if isinstance(record, dict):
        record["sha256"] = record_digest(record, tensors)
    return save(tensors, {FORMAT: json.dumps(record)})


# What no file may cause, by the name of Python's audit event.
_FORBIDDEN = {
    "pickle.find_class",
    "marshal.load",
    "os.system",
    "os.exec",
    "subprocess.Popen",
    "socket.connect",
    "socket.getaddrinfo",
}


class Watch:
    """What a process does while `watching`: a hook that, as Python has it, stays for good."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.seen: list[str] = []
        sys.addaudithook(self._look)

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event in _FORBIDDEN:
            self.seen.append(f"{event} {arguments}")
        if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wxa+"):
            if not str(arguments[0]).startswith(f"{self.folder}/"):
                self.seen.append(f"{event} {arguments}")

    @contextmanager
    def watching(self, folder: Path) -> Iterator[None]:
        """Fails if something is run, reached over the network, or written outside a folder."""
        self.folder, self.seen = folder, []
        try:
            yield
        finally:
            self.folder = None
        assert self.seen == []
