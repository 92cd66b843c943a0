"""Finds a Coqui model in a folder and reads its configuration, so that nothing outside of the folder is ever opened.

config.json                    of any Coqui model; `model` says which
model.pth                      the weights (also model_file.pth, best_model.pth, or the only other *.pth)
XTTS:  vocab.json              its tokenizer
       speakers_xtts.pth       its voices by name; may be missing
else:  speakers.json, speaker_ids.json, language_ids.json, model_se.pth, config_se.json   as config.json names them
       vocoder/                config.json and model.pth of what makes sound of spectrograms
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiservice_runtime import FatalError

LAYOUT = "expected config.json and model.pth of an XTTS, VITS or other Coqui model (and vocab.json for XTTS)"

MODELS = frozenset(
    {
        "xtts",
        "vits",
        "glow_tts",
        "tacotron",
        "tacotron2",
        "fast_pitch",
        "fast_speech",
        "fastspeech2",
        "speedy_speech",
        "align_tts",
        "forward_tts",
    }
)
"""Models of coqui-tts that read their weights as weights, and nothing from elsewhere."""

VOCODERS = frozenset({"hifigan", "melgan", "multiband_melgan", "fullband_melgan", "parallel_wavegan", "univnet"})
ENCODERS = frozenset({"speaker_encoder", "emotion_encoder"})

_WEIGHTS = ("model.pth", "model_file.pth", "model_file.pth.tar", "best_model.pth")
# Fields that name files, and the names under which those are published. A configuration holds the paths of the machine
# that trained the model, or addresses, which the library would open.
_FILES: Mapping[str, tuple[str, ...]] = {
    "d_vector_file": ("speakers.json", "speakers.pth"),
    "speakers_file": ("speaker_ids.json", "speaker_ids.pth"),
    "speaker_file": (),
    "language_ids_file": ("language_ids.json",),
    "speaker_encoder_model_path": ("model_se.pth", "model_se.pth.tar"),
    "speaker_encoder_config_path": ("config_se.json",),
}
# What only training reads.
_TRAINING = (
    "clvp_checkpoint",
    "decoder_checkpoint",
    "dvae_checkpoint",
    "external_emb_path",
    "f0_cache_path",
    "gpt_checkpoint",
    "mel_norm_file",
    "mel_statistics_parameter_path",
    "tokenizer_file",
    "xtts_checkpoint",
)
_CHARACTERS = "TTS.tts."


def read_config(path: Path, kinds: frozenset[str]) -> dict[str, Any]:
    """Returns a configuration that names files beside it only.

    Raises FatalError when there is none, it is damaged, or of a model that is not among `kinds`.
    """
    if not path.is_file():
        raise FatalError(f"No Coqui model in {path.parent}: {LAYOUT}.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FatalError(f"{path} is no JSON: it is damaged.") from error
    if not isinstance(content, dict) or kind_of(content) not in kinds:
        found = repr(kind_of(content))[:60] if isinstance(content, dict) else "no object"
        raise FatalError(f"{path} is of a model that is not served here ({found}): {', '.join(sorted(kinds))} are.")
    return localised(content, path.parent)


def kind_in(folder: Path) -> str:
    """Returns which model a folder is of, before it is loaded; empty where that cannot be told."""
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return ""
    return kind_of(content) if isinstance(content, dict) else ""


def kind_of(config: Mapping[str, Any]) -> str:
    """Returns which model a configuration is of; that of what really computes, where one is built on another."""
    name = config.get("base_model") or config.get("model") or config.get("generator_model") or ""
    return str(name).lower().removesuffix("_generator").removesuffix("_discriminator")


def localised(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Returns a configuration whose files are those of the folder, and which names no others.

    Raises FatalError where it names what must not be read: a class from elsewhere, or statistics that are pickled.
    """
    changed = _localised(config, folder)
    for part in ("model_args", "audio"):
        if isinstance(config.get(part), dict):
            changed[part] = _localised(config[part], folder)
    if isinstance(changed.get("audio"), dict) and changed["audio"].get("stats_path"):
        raise FatalError(
            f"The model in {folder} needs statistics that hold pickled code (stats_path): not served here."
        )
    characters = config.get("characters")
    name = characters.get("characters_class") if isinstance(characters, dict) else None
    if name and not str(name).startswith(_CHARACTERS):
        raise FatalError(f"The model in {folder} names a class of characters that is not Coqui's own.")
    return changed


def _localised(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    changed = dict(config)
    for field, names in _FILES.items():
        if field in config:
            value = config[field]
            given = value if isinstance(value, list) else [value]
            wanted = [Path(str(each)).name for each in given if each] or []
            paths = [folder / name for name in (*wanted, *names) if (folder / name).is_file()]
            found = [str(path) for path in paths[: max(1, len(wanted))]]
            changed[field] = (found if isinstance(value, list) else found[0]) if found else None
    for field in _TRAINING:
        if field in config:
            changed[field] = None
    return changed


def weights_path(folder: Path) -> Path:
    """Returns the file that holds the weights. Raises FatalError when it is missing, or cannot be told."""
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    known = {"speakers.pth", "speaker_ids.pth", "model_se.pth", "speakers_xtts.pth", "dvae.pth", "mel_stats.pth"}
    others = [path for path in sorted(folder.glob("*.pth")) if path.name not in known]
    if len(others) == 1:
        return others[0]
    raise FatalError(f"No weights in {folder}: {LAYOUT}.")
