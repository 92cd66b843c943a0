"""The operator with clocks that a test moves, and with a mishap: `python -m support.skewed_operator run --config F`.

Beside the configuration is a file `skew`, which holds two numbers: seconds that are added to the steady clock and to
the wall clock. Planning fails for every AIService whose name begins with "poisoned".
"""

from __future__ import annotations

import functools
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

from aiservice_operator import __main__, process
from aiservice_operator.plan import ServicePlan, ServiceView, plan_service
from aiservice_operator.reconcile import wall_clock

SKEW = Path(sys.argv[-1]).parent / "skew"


def _skew(which: int) -> float:
    return float(SKEW.read_text().split()[which])


def _poisoned(view: ServiceView, *others: Any) -> ServicePlan:
    if view.service.meta.name.startswith("poisoned"):
        raise KeyError("poison")
    return plan_service(view, *others)


if __name__ == "__main__":
    clocks = process.Clocks(
        steady=lambda: time.monotonic() + _skew(0),
        wall=lambda: wall_clock() + timedelta(seconds=_skew(1)),
    )
    with (
        patch("aiservice_operator.reconcile.plan_service", _poisoned),
        patch("aiservice_operator.process.run", functools.partial(process.run, clocks=clocks)),
    ):
        sys.exit(__main__.main())
