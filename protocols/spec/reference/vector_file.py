"""What a file of vectors holds (see ``gen_vectors``)."""

from typing import Any


class Vectors:
    """One file of vectors."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []

    def good(self, name: str, op: str, out: Any, /, **given: Any) -> None:
        self.items.append({"name": name, "op": op, "in": plain(given), "out": plain(out)})

    def between(self, name: str, op: str, low: float, high: float, /, **given: Any) -> None:
        bounds = {"low": f"{low:.6f}", "high": f"{high:.6f}"}
        self.items.append({"name": name, "op": op, "in": plain(given), **bounds})

    def bad(self, name: str, op: str, why: str, /, **given: Any) -> None:
        self.items.append({"name": name, "op": op, "in": plain(given), "refused": why})

    def differs(
        self, name: str, op: str, right: Any, wrong: Any, why: str, /, **given: Any
    ) -> None:
        if plain(right) == plain(wrong):
            raise SystemExit(f"{name}: this mistake shows nothing here")
        item = {"name": name, "op": op, "in": plain(given), "not": plain(wrong), "mistake": why}
        self.items.append(item)

    def above(self, name: str, op: str, wrong: float, why: str, /, **given: Any) -> None:
        item = {"name": name, "op": op, "in": plain(given), "above": f"{wrong:.6f}", "mistake": why}
        self.items.append(item)


def plain(value: Any) -> Any:
    """Bytes and doubles as text; everything else as it is."""
    if isinstance(value, bytes):
        return value.decode() if value[:1] == b"{" else value.hex()
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def flip(data: bytes, bit: int = 0) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
