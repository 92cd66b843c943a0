"""Long strings are taken out of JSON texts, however these are cut into chunks."""

from __future__ import annotations

import json
import random

import pytest

from aiservice_gateway.services.openai.json_strings import Piece, StringTaker


def split(text: bytes, sizes: random.Random | None, *keys: bytes) -> tuple[bytes, list[bytes]]:
    """The skeleton of a text and what was taken out of it, fed in one chunk or in random ones."""
    taker, skeleton = StringTaker(set(keys)), bytearray()
    taken: list[bytes] = []
    at, closed = 0, True
    while at < len(text):
        size = sizes.randint(1, 7) if sizes else len(text)
        for part in taker.feed(text[at : at + size]):
            if isinstance(part, Piece):
                if closed:
                    assert part.number == len(taken)
                    taken.append(b"")
                taken[-1] += part.data
                closed = part.last
            else:
                skeleton += part.data
        at += size
    assert closed
    return bytes(skeleton), taken


TEXTS = [
    (b'{"b64":"QUJD"}', b'{"b64":""}', [b"QUJD"]),
    (b'{"b64" : \n "QUJD", "x": [1, "b64"]}', b'{"b64" : \n "", "x": [1, "b64"]}', [b"QUJD"]),
    (b'[{"b64":"A"},{"b64":"","c":2},{"b64":null}]', b'[{"b64":""},{"b64":"","c":2},{"b64":null}]', [b"A", b""]),
    (b'{"a":"\\"b64\\":\\"no\\"","b64":"y\\"es"}', b'{"a":"\\"b64\\":\\"no\\"","b64":""}', [b'y\\"es']),
    (b'{"a":"ends \\\\","b64":"p\\/q\\\\"}', b'{"a":"ends \\\\","b64":""}', [b"p\\/q\\\\"]),
    (b'{"b64":["b64","x"]}', b'{"b64":["b64","x"]}', []),
    (b'{"b64":{"b64":"x"}}', b'{"b64":{"b64":""}}', [b"x"]),
    (b'["b64","b64"]', b'["b64","b64"]', []),
    (b'{"xb64":"1","b64x":"2","b6":"3"}', b'{"xb64":"1","b64x":"2","b6":"3"}', []),
    (b'{"' + b"k" * 200 + b'":"v","b64":"w"}', b'{"' + b"k" * 200 + b'":"v","b64":""}', [b"w"]),
]


@pytest.mark.parametrize(("text", "skeleton", "taken"), TEXTS)
def test_strings_are_taken_out(text: bytes, skeleton: bytes, taken: list[bytes]) -> None:
    assert split(text, None, b"b64") == (skeleton, taken)
    for seed in range(50):
        assert split(text, random.Random(seed), b"b64") == (skeleton, taken)


def test_any_document_comes_apart_as_the_json_module_reads_it() -> None:
    dice = random.Random(3)

    def value(depth: int) -> object:
        kind = dice.randint(0, 5 if depth else 3)
        if kind < 3:
            return "".join(dice.choice('ab,:"\\/{}[]é\n\x01 ') for _ in range(dice.randint(0, 8)))
        if kind == 3:
            return dice.choice([1, -2.5, None, True])
        if kind == 4:
            return [value(depth - 1) for _ in range(dice.randint(0, 3))]
        return {dice.choice(["b64", "x", 'q"', ":"]): value(depth - 1) for _ in range(dice.randint(0, 4))}

    for _ in range(300):
        document = {"b64": value(2), "rest": value(3)}

        def without(pairs: list[tuple[str, object]]) -> dict[str, object]:
            return {name: "" if name == "b64" and isinstance(each, str) else each for name, each in pairs}

        text = json.dumps(document, ensure_ascii=dice.random() < 0.5).encode()
        skeleton, taken = split(text, dice, b"b64")
        assert json.loads(skeleton) == json.loads(text, object_pairs_hook=without)
        for each in taken:
            json.loads(b'"' + each + b'"')  # still a proper string
        assert len(taken) == _count(document)


def _count(value: object) -> int:
    if isinstance(value, dict):
        own = sum(isinstance(each, str) for name, each in value.items() if name == "b64")
        return own + sum(_count(each) for each in value.values())
    return sum(_count(each) for each in value) if isinstance(value, list) else 0
