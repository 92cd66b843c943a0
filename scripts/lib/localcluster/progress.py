"""Progress lines: what is being done, and how long it has been going on."""

import sys
import time

_started = time.monotonic()


def elapsed() -> float:
    """Seconds since this command started."""
    return time.monotonic() - _started


def say(message: str) -> None:
    """Print a line with the elapsed time. It goes to stderr: stdout belongs to the answer."""
    print(f"[{elapsed():6.1f} s] {message}", file=sys.stderr, flush=True)
