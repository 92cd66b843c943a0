"""A loaded Whisper: weights to module, samples to text."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from whisper.audio import SAMPLE_RATE
from whisper.model import LayerNorm, Whisper
from whisper.timing import dtw
from whisper.tokenizer import LANGUAGES, TO_LANGUAGE_CODE, get_tokenizer

from aiservice_runtime import FatalError, InvalidRequestError
from aiservice_speech_recognition.audio import Samples
from aiservice_speech_recognition.weights import Weights


class _NoInit(TorchFunctionMode):
    """Leaves new parameters unset: those of a large model take half a minute to draw, and all are replaced."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if kwargs and "tensor" in kwargs else args[0]
        return func(*args, **(kwargs or {}))


def build(weights: Weights, *, precision: str, device: str) -> Whisper:
    """Returns the model with these weights, on the device, in fp32 or fp16.

    In fp16 the layer norms stay fp32: whisper computes them so. Raises FatalError when tensors are missing or
    left over.
    """
    with _NoInit():
        model = Whisper(weights.dims)
    try:
        model.load_state_dict(weights.tensors, assign=True)
    except RuntimeError as error:
        raise FatalError(f"The weights do not fit the model that they describe: {str(error)[:300]}") from error
    model.to(torch.float16 if precision == "fp16" else torch.float32)
    for module in model.modules():
        if isinstance(module, LayerNorm):
            module.float()
    if weights.alignment_heads is not None:
        model.register_buffer("alignment_heads", weights.alignment_heads.to_sparse(), persistent=False)
    return model.requires_grad_(False).eval().to(device)


class Transcriber:
    """Transcribes with one model. Not for several threads at once."""

    def __init__(self, model: Whisper, *, half: bool) -> None:
        self._model = model
        self._half = half
        self._end_of_text = get_tokenizer(model.is_multilingual, num_languages=model.num_languages).eot

    def language_code(self, language: str | None, *, translate: bool) -> str | None:
        """Returns Whisper's code of a language given by code or English name; None means: detect it.

        Raises InvalidRequestError when the model does not know the language, or cannot translate.
        """
        if not self._model.is_multilingual:
            if translate:
                raise InvalidRequestError("This model knows English only, it cannot translate.")
            if language is not None and language.lower() not in {"en", "english"}:
                raise InvalidRequestError("This model knows English only: leave language out, or set it to en.")
            return "en"
        if language is None:
            return None
        name = language.lower()
        code = name if name in LANGUAGES else TO_LANGUAGE_CODE.get(name)
        if code is None or list(LANGUAGES).index(code) >= self._model.num_languages:
            raise InvalidRequestError("The language is not known to this model; give its code, such as en, de or zh.")
        return code

    def warm_up(self) -> None:
        """Runs encoder, decoder and word alignment once. The alignment is compiled on its first use."""
        noise = np.random.default_rng(0).normal(0, 0.01, SAMPLE_RATE).astype(np.float32)
        # Without thresholds it decodes once, whatever comes out.
        self._model.transcribe(
            noise,
            fp16=self._half,
            language="en",
            sample_len=4,
            temperature=0.0,
            no_speech_threshold=None,
            logprob_threshold=None,
            compression_ratio_threshold=None,
        )
        dtw(torch.zeros(4, 8, device=self._model.device))

    def transcribe(self, samples: Samples, *, language: str | None, translate: bool, words: bool) -> dict[str, Any]:
        """Returns text, language, segments (with their words when asked for) and the number of text tokens."""
        result = self._model.transcribe(
            samples.astype(np.float32) / 32768,
            fp16=self._half,
            language=language,
            task="translate" if translate else "transcribe",
            word_timestamps=words,
        )
        segments = result["segments"]
        return {
            "text": result["text"].strip(),
            "language": result["language"],
            "segments": [_segment(segment, words=words) for segment in segments],
            "tokens": sum(token < self._end_of_text for segment in segments for token in segment["tokens"]),
        }


def _segment(segment: dict[str, Any], *, words: bool) -> dict[str, Any]:
    shown = {"start": _time(segment["start"]), "end": _time(segment["end"]), "text": segment["text"].strip()}
    if not words:
        return shown
    return shown | {
        "words": [
            {
                "word": word["word"].strip(),
                "start": _time(word["start"]),
                "end": _time(word["end"]),
                "probability": round(float(word["probability"]), 4),
            }
            for word in segment["words"]
        ]
    }


def _time(seconds: Any) -> float:
    return round(float(seconds), 3)
