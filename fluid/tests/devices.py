"""Devices of the CPU for child processes."""

import os


def with_devices(count: int, *flags: str) -> dict[str, str]:
    """The environment of a child process that sees so many devices, and compiles as this one does; `flags` are more of XLA's."""
    number = f"--xla_force_host_platform_device_count={count}"
    return {**os.environ, "XLA_FLAGS": " ".join([os.environ.get("XLA_FLAGS", ""), number, *flags]).strip()}
