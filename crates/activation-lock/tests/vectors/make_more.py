#!/usr/bin/env python3
"""Writes bypass-codes-more.json: an encoding and a hash made without this crate.

    python3 make_more.py > bypass-codes-more.json

The encoding works on a string of binary digits and shares no idea with the crate's shifts; the hash is hashlib's.
`cases` are checked one by one. The digests cover larger sets: SHA-256 over every code followed by a line feed.
"""

import hashlib
import json

SYMBOLS = "0123456789ACDEFGHJKLMNPQRTUVWXYZ"


def text(raw):
    bits = "".join(f"{byte:08b}" for byte in raw)
    symbols = [SYMBOLS[int(bits[at:at + 5], 2)] for at in range(0, 125, 5)] + [SYMBOLS[int(bits[125:], 2)]]
    groups, at = [], 0
    for size in (5, 5, 4, 4, 4, 4):
        groups.append("".join(symbols[at:at + size]))
        at += size
    return "-".join(groups)


def escrow_key_hash(raw):
    return hashlib.pbkdf2_hmac("sha256", raw, bytes(4), 50_000, 32).hex().upper()


def case(raw):
    return {"raw": raw.hex(), "code": text(raw), "hash": escrow_key_hash(raw)}


def digest(raws):
    return hashlib.sha256("".join(text(raw) + "\n" for raw in raws).encode()).hexdigest()


def one_hot(bit):
    return (1 << (127 - bit)).to_bytes(16, "big")


def chosen():
    """Edges of symbols and bytes, then values that come from nowhere special."""
    yield one_hot(0)
    yield one_hot(124)
    yield one_hot(125)
    yield one_hot(127)
    yield bytes([0xAA]) * 16
    yield bytes([0x55]) * 16
    yield bytes([0x7F]) + bytes([0xFF]) * 15
    yield bytes([0xFF]) * 15 + bytes([0xF8])
    yield bytes(range(255, 239, -1))
    for number in range(12):
        yield hashlib.sha256(f"lockwarden bypass code {number}".encode()).digest()[:16]


def every_symbol_everywhere():
    """Each of the 32 symbols at each of the 25 full places."""
    for place in range(25):
        for value in range(32):
            yield (value << (123 - 5 * place)).to_bytes(16, "big")


print(json.dumps({
    "cases": [case(raw) for raw in chosen()],
    "one_hot_sha256": digest(one_hot(bit) for bit in range(128)),
    "every_symbol_everywhere_sha256": digest(every_symbol_everywhere()),
    "hashed_counters_0_to_9999_sha256": digest(
        hashlib.sha256(number.to_bytes(4, "big")).digest()[:16] for number in range(10_000)),
}, indent=1))
