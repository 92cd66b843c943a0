"""openai-whisper: weights to module, samples to text."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from whisper.audio import SAMPLE_RATE
from whisper.model import LayerNorm, Whisper
from whisper.timing import dtw
from whisper.tokenizer import LANGUAGES, TO_LANGUAGE_CODE, get_tokenizer

from aiservice_runtime import Check, FatalError
from aiservice_runtime.unset import parameters_unset
from aiservice_speech_recognition.audio import Samples
from aiservice_speech_recognition.languages import code_of, english_only
from aiservice_speech_recognition.transcript import Heard, Segment, Word
from aiservice_speech_recognition.weights import Weights

DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


def build(weights: Weights, *, precision: str, device: str) -> Whisper:
    """Returns the model with these weights, on the device, in fp32 or fp16.

    In fp16 the layer norms stay fp32: whisper computes them so. Raises FatalError when tensors are missing or
    left over.
    """
    with parameters_unset():
        model = Whisper(weights.dims)
    try:
        model.load_state_dict(weights.tensors, assign=True)
    except RuntimeError as error:
        raise FatalError(f"The weights do not fit the model that they describe: {str(error)[:300]}") from error
    model.to(DTYPES[precision])
    for module in model.modules():
        if isinstance(module, LayerNorm):
            module.float()
    if weights.alignment_heads is not None:
        model.register_buffer("alignment_heads", weights.alignment_heads.to_sparse(), persistent=False)
    return model.requires_grad_(False).eval().to(device)


def search(beam_size: int) -> dict[str, int]:
    """Returns how whisper is told to decode.

    The beams are of its first attempt; the later ones, at a temperature, take the best of as many samples, as
    faster-whisper does. One beam is greedy decoding, which whisper has a faster way for.
    """
    return {} if beam_size == 1 else {"beam_size": beam_size, "best_of": beam_size}


class OpenAITranscriber:
    """Transcribes with openai-whisper."""

    streams = False

    def __init__(self, model: Whisper, *, half: bool, device: str, beam_size: int) -> None:
        self.model = model
        self._search = search(beam_size)
        self._half = half
        self._device = device
        self._end_of_text = get_tokenizer(model.is_multilingual, num_languages=model.num_languages).eot
        self._check: Check = lambda: None
        # Whisper computes a whole recording in one call; its decoder is called once a token.
        model.decoder.register_forward_pre_hook(lambda *_: self._check())

    def language_code(self, language: str | None, *, translate: bool) -> str | None:
        """See Transcriber."""
        if not self.model.is_multilingual:
            return english_only(language, translate=translate)
        known = list(LANGUAGES)[: self.model.num_languages]
        return None if language is None else code_of(language, known, TO_LANGUAGE_CODE)

    def warm_up(self) -> None:
        """Runs encoder, decoder and word alignment once. The alignment is compiled on its first use."""
        noise = np.random.default_rng(0).normal(0, 0.01, SAMPLE_RATE).astype(np.float32)
        # Without thresholds it decodes once, whatever comes out.
        self.model.transcribe(
            noise,
            fp16=self._half,
            language="en",
            sample_len=4,
            temperature=0.0,
            no_speech_threshold=None,
            logprob_threshold=None,
            compression_ratio_threshold=None,
        )
        dtw(torch.zeros(4, 8, device=self.model.device))

    def transcribe(
        self, samples: Samples, *, language: str | None, translate: bool, words: bool, check: Check
    ) -> Heard:
        """See Transcriber."""
        self._check = check
        try:
            result = self.model.transcribe(
                samples.astype(np.float32) / 32768,
                fp16=self._half,
                language=language,
                task="translate" if translate else "transcribe",
                word_timestamps=words,
                **self._search,
            )
        finally:
            self._check = lambda: None
        return Heard(result["language"], (self._segment(segment, words=words) for segment in result["segments"]))

    def sleep(self) -> None:
        """See Transcriber."""
        self.model.to("cpu")

    def wake(self) -> None:
        """See Transcriber."""
        self.model.to(self._device)

    def _segment(self, segment: dict[str, Any], *, words: bool) -> Segment:
        return Segment(
            start=_time(segment["start"]),
            end=_time(segment["end"]),
            text=segment["text"].strip(),
            tokens=sum(token < self._end_of_text for token in segment["tokens"]),
            words=[_word(word) for word in segment["words"]] if words else None,
            temperature=float(segment["temperature"]),
            avg_logprob=round(float(segment["avg_logprob"]), 4),
            compression_ratio=round(float(segment["compression_ratio"]), 4),
            no_speech_prob=round(float(segment["no_speech_prob"]), 4),
        )


def _word(word: dict[str, Any]) -> Word:
    return Word(word["word"].strip(), _time(word["start"]), _time(word["end"]), round(float(word["probability"]), 4))


def _time(seconds: Any) -> float:
    return round(float(seconds), 3)
