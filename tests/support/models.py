"""Models for tests: tiny ones with random weights in the true layouts, and real weights out of packages.

Only the standard library is imported at the top: each test environment holds other libraries.
"""

# ruff: noqa: PLC0415 - for the reason above

from __future__ import annotations

import fcntl
import hashlib
import importlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PREPARE = ROOT / "scripts" / "lib" / "weights" / "prepare.py"

# Whisper's shape with nothing left out but size: one layer, two heads, the whole vocabulary of the English models.
TINY_WHISPER: dict[str, int] = {
    "n_mels": 80,
    "n_audio_ctx": 1500,
    "n_audio_state": 32,
    "n_audio_head": 2,
    "n_audio_layer": 1,
    "n_vocab": 51864,
    "n_text_ctx": 448,
    "n_text_state": 32,
    "n_text_head": 2,
    "n_text_layer": 2,
}


def real_weights() -> Path:
    """Returns the folder that scripts/lib/weights/prepare.py writes: Whisper tiny.en, PP-OCRv6, samples.

    Made once per version of the script, in the cache outside the checkout. Needs the environment `demo`.
    """
    python = ROOT / ".venvs" / "demo" / "bin" / "python"
    if not python.exists():
        raise RuntimeError("the environment demo is missing: run scripts/env demo")
    requirements = PREPARE.with_name("requirements.txt")
    version = hashlib.sha256(PREPARE.read_bytes() + requirements.read_bytes()).hexdigest()[:16]
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aiservice"
    cache = Path(os.environ.get("AISERVICE_CACHE") or default) / "test-weights"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / version
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "SHA256SUMS").exists():
            unfinished = cache / f"{version}.new"
            shutil.rmtree(unfinished, ignore_errors=True)
            subprocess.run([python, PREPARE, unfinished], check=True, capture_output=True, text=True)
            shutil.rmtree(folder, ignore_errors=True)
            unfinished.rename(folder)
    return folder


def expected(task: str) -> dict[str, Any]:
    """Returns what a task must answer to its sample of real_weights()."""
    content: dict[str, Any] = json.loads((real_weights() / "samples" / "expected.json").read_text())[task]
    return content


def tiny_whisper(path: Path, *, vocabulary: int = TINY_WHISPER["n_vocab"]) -> None:
    """Writes an OpenAI checkpoint with random weights (51865 words and more: a multilingual model)."""
    import torch
    from whisper.model import ModelDimensions, Whisper

    torch.manual_seed(0)
    dims = TINY_WHISPER | {"n_vocab": vocabulary}
    model = Whisper(ModelDimensions(**dims))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0, 0.2)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"dims": dims, "model_state_dict": model.state_dict()}, path)


def _transformers() -> Any:
    """Returns the library without its types, which cover a part of it only."""
    return importlib.import_module("transformers")


def tiny_hugging_face_whisper(folder: Path, *, shards: bool = False) -> None:
    """Writes a multilingual Whisper with random weights as transformers itself saves it."""
    import torch

    transformers = _transformers()
    torch.manual_seed(0)
    config = transformers.WhisperConfig(
        vocab_size=51865,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=128,  # OpenAI's is four times the width, always
        decoder_ffn_dim=128,
    )
    model = transformers.WhisperForConditionalGeneration(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0, 0.2)
    model.generation_config = transformers.GenerationConfig.from_model_config(config)
    model.generation_config.alignment_heads = [[0, 1], [1, 0]]
    model.save_pretrained(folder, **({"max_shard_size": "2MB"} if shards else {}))


def tiny_blip2(folder: Path) -> None:
    """Writes a BLIP-2 with random weights: byte-level tokens, a picture of 32 x 32, the real processor's files."""
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors
    from tokenizers.models import BPE

    transformers = _transformers()
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    bpe = Tokenizer(BPE(vocab={token: number for number, token in enumerate(vocabulary)}, merges=[]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 2)])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="</s>", eos_token="</s>", pad_token="<pad>", unk_token="</s>"
    )
    tokenizer.add_tokens([AddedToken("<image>", normalized=False, special=True)])
    small = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.Blip2Config(
        vision_config={**small, "image_size": 32, "patch_size": 8},
        qformer_config={**small, "encoder_hidden_size": 32, "vocab_size": 50, "cross_attention_frequency": 2},
        text_config={
            "model_type": "opt",
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "ffn_dim": 37,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "word_embed_proj_dim": 32,
            "max_position_embeddings": 256,
            "pad_token_id": 1,
            "bos_token_id": 2,
            "eos_token_id": 2,
        },
        num_query_tokens=8,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    torch.manual_seed(0)
    model = transformers.Blip2ForConditionalGeneration(config)
    # Weights this large, with norms that pass them on, let the picture and the prompt decide what comes out.
    for name, parameter in model.named_parameters():
        if "norm" in name and name.endswith("weight"):
            torch.nn.init.ones_(parameter)
        else:
            torch.nn.init.normal_(parameter, 0, 0.3)
    model.save_pretrained(folder)
    processor = transformers.Blip2Processor(
        image_processor=transformers.BlipImageProcessor(size={"height": 32, "width": 32}),
        tokenizer=tokenizer,
        num_query_tokens=8,
    )
    processor.save_pretrained(folder)
