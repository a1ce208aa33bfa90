from pathlib import Path

import pytest

from noisyknn.processor import bf16_features


@pytest.mark.parametrize(
    ("flags", "features"),
    [
        ("fpu avx512f amx_tile amx_bf16 avx512_bf16", ["amx_bf16", "avx512_bf16"]),
        ("avx512_bf16 avx2", ["avx512_bf16"]),
        ("fpu avx512f avx512_bf16_not", []),
    ],
)
def test_instructions_are_read_from_the_processors_flags(
    flags: str, features: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"processor\t: 0\nflags\t\t: {flags}\n")
    assert bf16_features() == features


def test_without_a_list_of_flags_there_are_no_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    def read_text(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", read_text)
    assert bf16_features() == []
