"""How many CPUs this process may use: what `nproc` knows, less what the container's CPU limit takes."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def available_cpus() -> int:
    """Returns the number of CPUs to plan threads for, at least 1."""
    allowed = len(os.sched_getaffinity(0))
    quota = cpu_quota(_CGROUP)
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def cpu_quota(cgroup: Path) -> float | None:
    """Returns the CPU limit of a cgroup folder (version 2 or 1) in CPUs, or None when there is no limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except OSError:
        try:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if quota in {"max", "-1"}:
        return None
    return int(quota) / int(period)
