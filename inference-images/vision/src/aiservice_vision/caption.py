"""Captions and answers about a picture, with BLIP-2 through transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from transformers import Blip2ForConditionalGeneration, Blip2Processor
from transformers.utils import logging as transformers_logging

from aiservice_runtime import FatalError, InvalidRequestError
from aiservice_runtime.quantized import QUANTIZED, quantize

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# What quantized weights are computed in, and what the parts are kept in that are not quantized: fast on the device.
_AROUND = {"cpu": torch.float32, "cuda": torch.float16}
# The Q-Former is a thirtieth of the weights, and transformers itself keeps it in fp32; the last layer shares its matrix
# with the embedding, which would be there twice.
_NOT_QUANTIZED = ("lm_head",)


@dataclass(frozen=True)
class Caption:
    """What the model said, without the prompt."""

    text: str
    tokens: int
    """Tokens generated, special ones left out."""


class Captioner:
    """BLIP-2 with its processor. Not for several threads at once, except check_prompt()."""

    def __init__(self, folder: Path, *, precision: str, device: str, max_new_tokens: int) -> None:
        """Loads from the folder only. Raises FatalError when the files there do not make up a BLIP-2."""
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers is typed in parts
        dtype = _AROUND[device] if precision in QUANTIZED else DTYPES[precision]
        try:
            self._processor = Blip2Processor.from_pretrained(folder, local_files_only=True)
            # Straight to the device, each tensor out of the mapped files; what is quantized is so before it goes there.
            model = Blip2ForConditionalGeneration.from_pretrained(
                folder, dtype=dtype, local_files_only=True, device_map="cpu" if precision in QUANTIZED else device
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = (str(error).splitlines() or [""])[0][:300]
            raise FatalError(f"The BLIP-2 model in {folder} cannot be loaded: {reason}") from error
        if precision in QUANTIZED:
            quantize([model.vision_model, model.language_model], precision, but=_NOT_QUANTIZED)
        self.model = model.to(torch.device(device)).eval()  # type: ignore[arg-type]  # its decorator hides the method
        # Answers are read off at the end of each row: the shorter prompts of a batch are padded before their start.
        self._processor.tokenizer.padding_side = "left"
        self._dtype = dtype
        self._max_new_tokens = max_new_tokens
        self._special = set(self._processor.tokenizer.all_special_ids) | {self.model.config.image_token_id}

    def check_prompt(self, prompt: str) -> None:
        """Raises InvalidRequestError on a prompt with the mark that stands for the picture."""
        mark = str(self._processor.image_token)
        if mark in prompt:
            raise InvalidRequestError(f"The prompt must not contain {mark}.")

    @torch.inference_mode()
    def describe(self, pictures: Sequence[Image.Image], prompts: Sequence[str] | None) -> list[Caption]:
        """Returns a caption of each picture, or with prompts (one each) their continuations.

        "Question: how many? Answer:" asks a question. All are computed at once.
        """
        inputs = self._processor(
            images=list(pictures), text=None if prompts is None else list(prompts), padding=True, return_tensors="pt"
        ).to(self.model.device, self._dtype)
        outputs = self.model.generate(**inputs, max_new_tokens=self._max_new_tokens, do_sample=False)
        given = [None] * len(pictures) if prompts is None else inputs["input_ids"]
        return [self._caption(without_prompt(output, prompt)) for output, prompt in zip(outputs, given, strict=True)]

    def _caption(self, generated: torch.Tensor) -> Caption:
        tokens = [token for token in generated.tolist() if token not in self._special]
        return Caption(self._processor.tokenizer.decode(tokens).strip(), len(tokens))


def without_prompt(output: torch.Tensor, prompt: torch.Tensor | None) -> torch.Tensor:
    """Returns the generated ids (one dimension): decoder-only models repeat the prompt's before their own."""
    if prompt is None or not torch.equal(output[: len(prompt)], prompt):
        return output
    return output[len(prompt) :]
