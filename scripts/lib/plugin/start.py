"""Starts the plugin from the folder that its archive was unpacked into."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))

from aiservice_kubectl.__main__ import main

sys.exit(main())
