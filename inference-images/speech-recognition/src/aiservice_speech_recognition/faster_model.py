"""faster-whisper: the same models on CTranslate2, two to four times as fast, in less memory.

Layout: model.bin and config.json as ct2-transformers-converter writes them, with tokenizer.json, vocabulary.json
(or .txt) and preprocessor_config.json: Systran/faster-whisper-* on the Hugging Face hub.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.tokenizer import _LANGUAGE_CODES
from whisper.tokenizer import TO_LANGUAGE_CODE

from aiservice_runtime import Check, FatalError
from aiservice_speech_recognition.audio import SAMPLE_RATE, Samples
from aiservice_speech_recognition.languages import code_of, english_only
from aiservice_speech_recognition.transcript import Heard, Segment, Word

_COMPUTE_TYPES = {
    ("cpu", "fp32"): "float32",
    ("cpu", "int8"): "int8",
    ("cuda", "fp32"): "float32",
    ("cuda", "fp16"): "float16",
    ("cuda", "bf16"): "bfloat16",
    ("cuda", "int8"): "int8_float16",
}


class FasterTranscriber:
    """Transcribes with faster-whisper; segments come one by one."""

    streams = True

    def __init__(self, folder: Path, *, precision: str, device: str, threads: int, beam_size: int) -> None:
        """Loads from the folder only. Raises FatalError when the files there do not make up a model."""
        try:
            self._model = WhisperModel(
                str(folder),
                device=device,
                compute_type=_COMPUTE_TYPES[device, precision],
                cpu_threads=threads,
                local_files_only=True,
            )
        except (OSError, ValueError, RuntimeError) as error:
            reason = (str(error).splitlines() or [""])[0][:300]
            raise FatalError(f"The faster-whisper model in {folder} cannot be loaded: {reason}") from error
        self._beam_size = beam_size
        self._end_of_text = self._model.hf_tokenizer.token_to_id("<|endoftext|>")

    def language_code(self, language: str | None, *, translate: bool) -> str | None:
        """See Transcriber."""
        if not self._model.model.is_multilingual:
            return english_only(language, translate=translate)
        return None if language is None else code_of(language, _LANGUAGE_CODES, TO_LANGUAGE_CODE)

    def warm_up(self) -> None:
        """Runs encoder, decoder and word alignment once."""
        noise = np.random.default_rng(0).normal(0, 0.01, SAMPLE_RATE)
        samples = (noise * 32768).astype(np.int16)
        heard = self.transcribe(samples, language="en", translate=False, words=True, check=lambda: None)
        list(heard.segments)

    def transcribe(
        self, samples: Samples, *, language: str | None, translate: bool, words: bool, check: Check
    ) -> Heard:
        """See Transcriber."""
        check()
        segments, info = self._model.transcribe(
            samples.astype(np.float32) / 32768,
            language=language,
            task="translate" if translate else "transcribe",
            word_timestamps=words,
            beam_size=self._beam_size,
            best_of=self._beam_size,
        )

        def checked() -> Iterator[Segment]:
            for segment in segments:
                check()
                yield self._segment(segment)

        return Heard(info.language, checked())

    def sleep(self) -> None:
        """See Transcriber."""
        self._model.model.unload_model(to_cpu=True)

    def wake(self) -> None:
        """See Transcriber."""
        self._model.model.load_model()

    def _segment(self, segment: Any) -> Segment:
        return Segment(
            start=round(segment.start, 3),
            end=round(segment.end, 3),
            text=segment.text.strip(),
            tokens=sum(token < self._end_of_text for token in segment.tokens),
            words=None if segment.words is None else [_word(word) for word in segment.words],
            temperature=float(segment.temperature or 0.0),
            avg_logprob=round(segment.avg_logprob, 4),
            compression_ratio=round(segment.compression_ratio, 4),
            no_speech_prob=round(segment.no_speech_prob, 4),
        )


def _word(word: Any) -> Word:
    return Word(word.word.strip(), round(float(word.start), 3), round(float(word.end), 3), round(word.probability, 4))
