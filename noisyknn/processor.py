"""What this machine's processor can do."""

from pathlib import Path


def bf16_features() -> list[str]:
    """The processor's instructions for bf16: ``amx_bf16``, ``avx512_bf16``, both or (also off Linux) none."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return []
    return [name for name in ("amx_bf16", "avx512_bf16") if name in flags]
