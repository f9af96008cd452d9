"""What the kernel says of the processors and the memory, in the words that matter to inference."""

from pathlib import Path

import pytest

from cortex.environments.processors import memory, processors

INTEL = """processor\t: 0
model name\t: Intel(R) Xeon(R) Platinum 8488C
flags\t\t: fpu avx2 avx512f avx512_bf16 avx512_vnni amx_bf16 amx_tile amx_int8

processor\t: 1
flags\t\t: fpu
"""
ARM = """processor\t: 0
BogoMIPS\t: 243.75
Features\t: fp asimd sve i8mm bf16
CPU part\t: 0xd40
"""


@pytest.mark.parametrize(
    ("text", "model", "features"),
    [
        (INTEL, "Intel(R) Xeon(R) Platinum 8488C", ("avx2", "avx512", "vnni", "bf16", "amx")),
        (ARM, None, ("bf16", "neon", "sve", "i8mm")),
        ("\x00\xff: :\n", None, ()),
        (None, None, ()),
    ],
    ids=["x86", "arm", "nonsense", "no file"],
)
def test_processors(text: str | None, model: str | None, features: tuple[str, ...], tmp_path: Path) -> None:
    """The first processor stands for all; without a name the platform's is taken."""
    if text is not None:
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/cpuinfo").write_text(text, encoding="latin-1")
    found = processors(tmp_path)
    assert found.features == features
    assert found.model == model if model else found.model
    assert 1 <= found.cores <= found.logical


@pytest.mark.parametrize(
    ("file", "text", "limited"),
    [
        ("memory.max", "1000000\n", True),
        ("memory.max", "max\n", False),
        ("memory/memory.limit_in_bytes", "1000000\n", True),
        ("memory/memory.limit_in_bytes", f"{2**63 - 4096}\n", False),
    ],
)
def test_memory_is_what_the_container_may_have(file: str, text: str, limited: bool, tmp_path: Path) -> None:
    whole = memory(tmp_path)
    limit = tmp_path / "sys/fs/cgroup" / file
    limit.parent.mkdir(parents=True)
    limit.write_text(text)
    found = memory(tmp_path)
    assert found.total == (1_000_000 if limited else whole.total)
    assert found.available <= found.total
