"""Imports coqui-tts the way this image needs it: without torchcodec, without compiled parts of torchaudio, and quiet.

Imported once, before anything of TTS, in the device thread.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import importlib.util
import logging
import os
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path


def prepare() -> None:
    """Imports torchaudio and coqui-tts. Nothing of them reads a file or an address that is not handed to them after."""
    home = Path(os.environ.get("HOME") or tempfile.gettempdir())
    os.environ.setdefault("TTS_HOME", str(home / "tts"))
    os.environ.setdefault("MPLCONFIGDIR", str(home / ".cache" / "matplotlib"))
    # Whatever a library passes to torch.load: pickled code in a checkpoint is never run.
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    # They log texts: "Character ... not found", "The text length exceeds".
    for name in ("TTS", "trainer"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    _import_torchaudio()
    with _torchcodec():
        importlib.import_module("TTS")


def _import_torchaudio() -> None:
    """Imports torchaudio without its compiled extension.

    That is built for CUDA, whichever torch is installed, and torchaudio fails to import where it cannot be loaded. XTTS
    uses resampling and spectrograms, which are written in Python.
    """
    if "torchaudio" in sys.modules:
        return
    extension = types.ModuleType("torchaudio._extension")
    vars(extension).update(
        _IS_TORCHAUDIO_EXT_AVAILABLE=False, _IS_ALIGN_AVAILABLE=False, fail_if_no_align=lambda function: function
    )
    sys.modules[extension.__name__] = extension
    importlib.import_module("torchaudio")


@contextlib.contextmanager
def _torchcodec() -> Iterator[None]:
    """Lets coqui-tts find torchcodec, which it asks for when it is imported and needs to read files only.

    Here recordings are decoded before, and answers encoded after.
    """
    if importlib.util.find_spec("torchcodec") is not None:
        yield
        return
    stand_in = types.ModuleType("torchcodec")
    stand_in.__spec__ = importlib.machinery.ModuleSpec("torchcodec", None)
    sys.modules["torchcodec"] = stand_in
    try:
        yield
    finally:
        del sys.modules["torchcodec"]
