"""How large the Whisper model in a folder is, by its files alone."""

from __future__ import annotations

from pathlib import Path

from aiservice_runtime.weight_files import Parameters, by_size, in_safetensors


def parameters_of(folder: Path, *, faster: bool) -> Parameters | None:
    """Returns how many parameters the model has; None where its files do not tell.

    OpenAI's checkpoints and Systran's CTranslate2 models hold fp16; one that was converted to int8 has twice as many
    as it seems, and takes what is found here.
    """
    try:
        if faster:
            found = by_size([folder / "model.bin"])
        else:
            safe = list(folder.glob("*.safetensors"))
            found = in_safetensors(safe) if safe else by_size(folder.glob("*.pt"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return found if found.count else None
