"""VITS, and the models that need a vocoder beside them: Glow-TTS, Tacotron 2, FastPitch and their like."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchaudio
from TTS.config import get_from_config_or_model_args
from TTS.tts.models import setup_model as setup_tts_model
from TTS.tts.utils.synthesis import inv_spectrogram
from TTS.utils.audio import AudioProcessor
from TTS.vocoder.models import setup_model as setup_vocoder_model
from TTS.vocoder.utils.generic_utils import interpolate_vocoder_input

from aiservice_runtime import Check
from aiservice_speech_synthesis.checkpoints import configured, seeded
from aiservice_speech_synthesis.encoders import Samples
from aiservice_speech_synthesis.folders import ENCODERS, VOCODERS, read_config, weights_path
from aiservice_speech_synthesis.sentences import passages
from aiservice_speech_synthesis.speaker import Script
from aiservice_speech_synthesis.voices import CLIP_RATE, Clip, ClonedVoices, Voice

_CHARACTERS = 300
"""Of one stretch. These models were trained on single sentences, and take memory by its length."""


class CoquiSpeaker:
    """A loaded model that is not XTTS."""

    def __init__(self, folder: Path, content: dict[str, Any], *, device: str, cached: int) -> None:
        """Loads it. Raises what coqui-tts does when something is missing or damaged."""
        encoder = (content.get("model_args") or {}).get("speaker_encoder_config_path")
        if encoder:
            read_config(Path(encoder), ENCODERS)
        config = configured(content)
        self.model = setup_tts_model(config)
        self.model.load_checkpoint(config, weights_path(folder), eval=True)
        self._vocoder = _Vocoder(folder / "vocoder", device) if (folder / "vocoder").is_dir() else None
        self._config = config
        self.modules: Sequence[Any] = [self.model, *([self._vocoder.model] if self._vocoder is not None else [])]
        for module in self.modules:
            module.requires_grad_(False)
            module.to(device)
        self.rate = self._vocoder.rate if self._vocoder is not None else int(config.audio["sample_rate"])
        # One that names none is taken for English by coqui-tts.
        self.languages: Sequence[str] = list(self.model.language_manager.name_to_id)
        manager = self.model.speaker_manager
        self._d_vectors = bool(get_from_config_or_model_args(config, "use_d_vector_file"))
        names = [] if manager is None else manager.embedding_names if self._d_vectors else manager.speaker_names
        self.voices: Sequence[str] = list(names)
        self.needs_voice = manager is not None and bool(
            self._d_vectors or get_from_config_or_model_args(config, "use_speaker_embedding")
        )
        # A model with a table of speakers has no place for another voice, encoder or not.
        self.clones = manager is not None and manager.encoder is not None and self._d_vectors
        self.speeds = hasattr(self.model, "length_scale")
        self._device = device
        self._cloned = ClonedVoices(cached)
        self._tokenizing = threading.Lock()  # it notes what it did not know

    def scripts(self, text: str, *, language: str, voice: Voice, speed: float, seed: int) -> list[Script]:
        """See Speaker. What the model has no signs for is left out, as it would by itself."""
        found = []
        for number, part in enumerate(passages(text, fits=lambda _: True, limit=_CHARACTERS)):
            ids = self._ids(part, language)
            if ids:
                found.append(Script(part, language, len(ids), ids, voice, speed, seed + number))
        return found

    def warm_up(self) -> None:
        """See Speaker."""
        clip = Clip(np.random.default_rng(0).normal(0, 0.1, 2 * CLIP_RATE).astype(np.float32), "warm-up")
        voice = self.voices[0] if self.voices else clip if self.clones else None
        if self.clones:
            self._listen(clip)
        for script in self.scripts("Hello there.", language=self.languages[0], voice=voice, speed=1, seed=0):
            self.speak(script, lambda: None)

    def speak(self, script: Script, check: Check) -> Samples:
        """See Speaker. These models compute a stretch in one go; `check` is called before."""
        check()
        inputs = torch.tensor([script.ids], dtype=torch.long, device=self._device)
        scale = getattr(self.model, "length_scale", 1.0)
        if self.speeds:
            self.model.length_scale = scale / script.speed
        try:
            with torch.inference_mode(), seeded(script.seed, self._device):
                outputs = self.model.inference(inputs, aux_input=self._conditions(script, inputs))
                samples = self._samples(outputs["model_outputs"])
        finally:
            if self.speeds:
                self.model.length_scale = scale
        if not np.isfinite(samples).all():
            raise RuntimeError("the model gave no sound but NaN")
        return samples

    def stream(self, script: Script, check: Check) -> Iterator[Samples]:
        """See Speaker. One piece: an answer is streamed sentence by sentence."""
        yield self.speak(script, check)

    def _ids(self, text: str, language: str) -> list[int]:
        with self._tokenizing:
            ids: list[int] = self.model.tokenizer.text_to_ids(text, language=language)
            blanks = {self.model.tokenizer.characters.blank_id, self.model.tokenizer.characters.pad_id}
        return [int(each) for each in ids] if set(ids) - blanks else []

    def _conditions(self, script: Script, inputs: torch.Tensor) -> dict[str, Any]:
        """Returns what goes with the text, as BaseTTS.synthesize() makes it."""
        speaker, d_vector = self._speaker(script.voice)
        many = self.model.language_manager.num_languages > 1
        language = self.model.language_manager.name_to_id[script.language] if many else 0
        return {
            "x_lengths": torch.tensor([inputs.shape[1]], device=self._device),
            "speaker_ids": None if speaker is None else torch.tensor([speaker], device=self._device),
            "d_vectors": d_vector,
            "language_ids": torch.tensor([language], device=self._device),
        }

    def _speaker(self, voice: Voice) -> tuple[int | None, torch.Tensor | None]:
        """Returns the voice as number or as vector, whichever the model takes."""
        if voice is None:
            return None, None
        if isinstance(voice, Clip):
            return None, self._cloned.get(voice, self._listen).to(self._device)
        if self._d_vectors:
            mean = self.model.speaker_manager.get_mean_embedding(voice)
            return None, torch.tensor(mean, dtype=torch.float, device=self._device).unsqueeze(0)
        return int(self.model.speaker_manager.name_to_id[voice]), None

    def _listen(self, clip: Clip) -> torch.Tensor:
        """Computes the vector of a voice, as EmbeddingManager.compute_embedding_from_clip() does for a file."""
        manager = self.model.speaker_manager
        rate = int(manager.encoder_ap.sample_rate)
        samples = torchaudio.functional.resample(torch.from_numpy(clip.samples), CLIP_RATE, rate)
        if not manager.encoder_config.model_params.get("use_torch_spec", False):
            samples = torch.from_numpy(manager.encoder_ap.melspectrogram(samples.numpy()))
        with torch.inference_mode():
            vector: torch.Tensor = manager.encoder.compute_embedding(samples.to(self._device).unsqueeze(0))
        return vector.float().cpu()

    def _samples(self, outputs: torch.Tensor) -> Samples:
        """Returns the sound of what the model gave: sound, or a spectrogram."""
        if (
            outputs.ndim == 3
            and outputs.shape[1] == 1
            and self._vocoder is None
            and not _is_spectrogram(outputs, self._config)
        ):
            return _flat(outputs)
        if self._vocoder is not None:
            return self._vocoder.sound(outputs[0], self.model.ap)
        return np.asarray(inv_spectrogram(outputs[0].cpu().numpy(), self.model.ap, self._config), dtype=np.float32)


class _Vocoder:
    """Makes sound of spectrograms."""

    def __init__(self, folder: Path, device: str) -> None:
        config = configured(read_config(folder / "config.json", VOCODERS))
        self.model = setup_vocoder_model(config)
        self.model.load_checkpoint(config, str(weights_path(folder)), eval=True)
        self.rate = int(config.audio["sample_rate"])
        self._processor = AudioProcessor(config.audio)
        self._device = device

    def sound(self, spectrogram: torch.Tensor, model: Any) -> Samples:
        """Returns the samples of one (time, channels), normalised as `model` does. As Synthesizer._run_vocoder()."""
        plain = model.denormalize(spectrogram.cpu().numpy().T)
        inputs = self._processor.normalize(plain)
        scale = [1, self.rate / model.sample_rate]
        same = scale[1] == 1
        tensor = torch.from_numpy(inputs).unsqueeze(0) if same else interpolate_vocoder_input(scale, inputs)
        return _flat(self.model.inference(tensor.to(self._device)))


def _is_spectrogram(outputs: torch.Tensor, config: Any) -> bool:
    return bool(outputs.shape[-1] == config.audio["num_mels"])


def _flat(samples: torch.Tensor) -> Samples:
    flat: Samples = samples.float().cpu().numpy().reshape(-1)
    return flat
