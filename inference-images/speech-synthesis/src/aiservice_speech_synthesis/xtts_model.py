"""XTTS: speaks in many languages with a voice that it is given, and streams while it computes."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import StoppingCriteria, StoppingCriteriaList
from TTS.tts.models import xtts

from aiservice_runtime import Check, FatalError
from aiservice_runtime.unset import parameters_unset
from aiservice_speech_synthesis.checkpoints import configured, read_weights, seeded
from aiservice_speech_synthesis.encoders import Samples
from aiservice_speech_synthesis.folders import weights_path
from aiservice_speech_synthesis.sentences import passages
from aiservice_speech_synthesis.speaker import Script
from aiservice_speech_synthesis.voices import CLIP_RATE, Clip, ClonedVoices, Voice
from aiservice_speech_synthesis.xtts_text import XttsTokenizer

# What a language is read through beyond coqui-tts itself; without it the language is not offered. Japanese needs a
# dictionary that is published as source only.
_READERS = {"ja": "cutlet", "zh": "pypinyin"}
_CHARACTERS = 250
"""Of one stretch in a language whose limit coqui-tts does not know."""

Latents = tuple[torch.Tensor, torch.Tensor]
"""What XTTS knows of a voice: conditioning latents of its GPT, and the embedding of the speaker."""


class _Xtts(xtts.Xtts):  # type: ignore[misc]  # coqui-tts has no types
    """Reads checkpoints straight to the device, and writes none anew, as coqui-tts does with the published one."""

    place = "cpu"
    """The device."""

    def _load_checkpoint(self, model_path: Path) -> dict[str, Any]:
        with xtts._legacy_safe_globals():  # noqa: SLF001 - the published checkpoint holds its configuration as objects
            weights: dict[str, Any] = read_weights(model_path, device=self.place)["model"]
        return weights

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = True) -> Any:
        """Takes the tensors themselves, where coqui-tts would have them copied."""
        return super().load_state_dict(state_dict, strict=strict, assign=assign)


class XttsSpeaker:
    """A loaded XTTS."""

    clones = True
    needs_voice = True
    speeds = True

    def __init__(self, folder: Path, content: dict[str, Any], *, device: str, cached: int, stream_tokens: int) -> None:
        """Loads it. Raises what coqui-tts does when something is missing or damaged."""
        self._config = configured(content)
        self.model = _load(folder, self._config, device)
        self.model.requires_grad_(False)
        self.model.float().to(device)
        self.modules: Sequence[Any] = [self.model]
        self.rate = int(self._config.model_args.output_sample_rate)
        self.languages: Sequence[str] = [name for name in self._config.languages if _readable(name)]
        self._named = _read_voices(folder / "speakers_xtts.pth")
        self.voices: Sequence[str] = list(self._named)
        self._cloned = ClonedVoices(cached)
        self._device = device
        self._stream_tokens = stream_tokens
        self._most_tokens = int(self._config.model_args.gpt_max_text_tokens) - 1
        self._tokenizer: XttsTokenizer = self.model.tokenizer

    def scripts(self, text: str, *, language: str, voice: Voice, speed: float, seed: int) -> list[Script]:
        """See Speaker. Each stretch has a seed of its own, so that it sounds the same whatever is computed between."""
        limit = self._tokenizer.char_limits.get(language.partition("-")[0], _CHARACTERS)
        tokens = functools.cache(lambda part: self._tokens(part, language))
        found = passages(text, fits=lambda part: tokens(part) < self._most_tokens, limit=limit)
        return [
            Script(part, language, tokens(part), (), voice, speed, seed + number) for number, part in enumerate(found)
        ]

    def warm_up(self) -> None:
        """See Speaker."""
        clip = Clip(np.random.default_rng(0).normal(0, 0.1, 2 * CLIP_RATE).astype(np.float32), "warm-up")
        latents = self._listen(clip)
        self._named = {"": latents, **self._named}
        try:
            [script] = self.scripts("Hello there.", language=self.languages[0], voice="", speed=1, seed=0)
            for _ in self.stream(script, lambda: None):
                break
            self.speak(script, lambda: None)
        finally:
            del self._named[""]

    def speak(self, script: Script, check: Check) -> Samples:
        """See Speaker. `check` is called once a token."""
        check()
        with seeded(script.seed, self._device):
            made = self.model.inference(script.text, script.language, **self._arguments(script, check))
        samples: Samples = np.asarray(made["wav"], dtype=np.float32)
        return _sound(samples)

    def stream(self, script: Script, check: Check) -> Iterator[Samples]:
        """See Speaker. `check` is called once a token."""
        check()
        chunks = self.model.inference_stream(
            script.text, script.language, stream_chunk_size=self._stream_tokens, **self._arguments(script, check)
        )
        with seeded(script.seed, self._device):
            for chunk in chunks:
                yield _sound(chunk.float().cpu().numpy().reshape(-1))

    def _arguments(self, script: Script, check: Check) -> dict[str, Any]:
        conditioning, embedding = self._latents(script.voice)
        drawn = ("temperature", "length_penalty", "repetition_penalty", "top_k", "top_p")
        return {
            "gpt_cond_latent": conditioning,
            "speaker_embedding": embedding,
            "speed": script.speed,
            "stopping_criteria": StoppingCriteriaList([_Watch(check)]),
            **{name: self._config[name] for name in drawn},
        }

    def _latents(self, voice: Voice) -> Latents:
        if isinstance(voice, Clip):
            latents: Latents = self._cloned.get(voice, self._listen)
            return latents
        if voice is None:
            raise ValueError("XTTS cannot speak without a voice")
        return self._named[voice]

    def _listen(self, clip: Clip) -> Latents:
        """Computes the latents of a recording, as Xtts.get_conditioning_latents() does for a file."""
        config = self._config
        samples = torch.from_numpy(clip.samples)[None, : CLIP_RATE * config.max_ref_len].to(self._device)
        if config.sound_norm_refs:
            samples = samples / samples.abs().max() * 0.75
        embedding = self.model.get_speaker_embedding(samples, CLIP_RATE)
        conditioning = self.model.get_gpt_cond_latents(
            samples, CLIP_RATE, length=config.gpt_cond_len, chunk_length=config.gpt_cond_chunk_len
        )
        # In the memory of the host: many voices are kept, and sleep() must leave nothing on the device.
        return conditioning.cpu(), embedding.cpu()

    def _tokens(self, text: str, language: str) -> int:
        return len(self._tokenizer.encode(text.strip().lower(), language))


class _Watch(StoppingCriteria):
    """Never stops the decoder by itself, but lets `check` raise."""

    def __init__(self, check: Check) -> None:
        self._check = check

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        self._check()
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


def _load(folder: Path, config: Any, device: str) -> _Xtts:
    vocabulary = folder / "vocab.json"
    if not vocabulary.is_file():
        raise FatalError(f"The XTTS model in {folder} is not complete: vocab.json is missing.")
    with parameters_unset():
        model = _Xtts(config)
        model.place = device
        # An empty name keeps it from reading the voices itself, onto the device that they were saved on.
        model.load_checkpoint(
            config, checkpoint_path=weights_path(folder), vocab_path=vocabulary, speaker_file_path="", eval=True
        )
    model.tokenizer = XttsTokenizer(vocabulary)
    return model


def _read_voices(path: Path) -> dict[str, Latents]:
    if not path.is_file():
        return {}
    voices = read_weights(path)
    return {str(name): (voice["gpt_cond_latent"], voice["speaker_embedding"]) for name, voice in voices.items()}


def _readable(language: str) -> bool:
    reader = _READERS.get(language.partition("-")[0])
    return reader is None or importlib.util.find_spec(reader) is not None


def _sound(samples: Samples) -> Samples:
    if not np.isfinite(samples).all():
        raise RuntimeError("the model gave no sound but NaN")
    return samples
