"""Reads configurations and weights into models, for all models alike."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from TTS.config import register_config

from aiservice_runtime import FatalError
from aiservice_speech_synthesis.folders import LAYOUT


def configured(content: dict[str, Any]) -> Any:
    """Returns a configuration as Coqui's class. As TTS.config.load_config(), which reads a file."""
    name = str(content["model"] if "model" in content else content["generator_model"])
    config = register_config(name.replace("_generator", "").replace("_discriminator", "").lower())()
    config.from_dict(content)
    return config


def read_weights(path: Path, *, device: str = "cpu") -> Any:
    """Returns a checkpoint on a device, each tensor out of the mapped file; pickled code in it is not run."""
    return torch.load(path, map_location=device, weights_only=True, mmap=zipfile.is_zipfile(path))


@contextmanager
def told(folder: Path) -> Iterator[None]:
    """Turns whatever is wrong with the files of a model into a FatalError with one sentence."""
    try:
        yield
    except (FatalError, MemoryError, torch.OutOfMemoryError):  # no room for a model does not mean that it is damaged
        raise
    except FileNotFoundError as error:
        name = Path(str(error.filename or "")).name
        raise FatalError(
            f"The model in {folder} is not complete: {name or str(error)[:200]} is missing; {LAYOUT}."
        ) from error
    except Exception as error:
        raise FatalError(
            f"The model in {folder} cannot be loaded ({type(error).__name__}): it is damaged, or config.json is of "
            "another. Download it again."
        ) from error


@contextmanager
def seeded(seed: int, device: str) -> Iterator[None]:
    """Draws what is random within from a seed, and leaves the generators of the process as they were.

    Models draw from torch's own generators; the device thread is the only one that computes.
    """
    devices = [torch.cuda.current_device()] if device == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
