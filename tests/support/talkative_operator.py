"""The operator, and what Kopf says of each watch beside it: `python -m support.talkative_operator run --config F`.

That a watch is begun anew because the API server no longer has the versions it asked for (410 Gone) is told nowhere
else: no metric tells it from any other break.
"""

from __future__ import annotations

import logging
import sys

from aiservice_operator import __main__

if __name__ == "__main__":
    logging.getLogger("kopf._cogs.clients.watching").setLevel(logging.DEBUG)
    sys.exit(__main__.main())
