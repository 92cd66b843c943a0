"""Tiny models with random weights, in the true layout on disk: for the demo and the tests, where no hub can be asked.

Usage: PYTHONPATH=scripts/lib .venvs/ENVIRONMENT/bin/python -m weights.tiny NAME FOLDER

Each is written by the libraries that read it, so in its engine's own environment. Only the standard library is imported
at the top: each environment holds others.
"""

# ruff: noqa: PLC0415, S106 - for the reason above; tokens of a tokenizer are no passwords

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from weights import tiny_speech

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


def whisper(path: Path, *, vocabulary: int = TINY_WHISPER["n_vocab"]) -> None:
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


def hugging_face_whisper(folder: Path, *, shards: bool = False) -> None:
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


def blip2(folder: Path, *, width: int = 32, inner: int = 37) -> None:
    """Writes a BLIP-2 with random weights: byte-level tokens, a picture of 32 x 32, the real processor's files.

    Its layers are `width` wide, and `inner` between the two of a block.
    """
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
    small = {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.Blip2Config(
        vision_config={**small, "image_size": 32, "patch_size": 8},
        qformer_config={**small, "encoder_hidden_size": 32, "vocab_size": 50, "cross_attention_frequency": 2},
        text_config={
            "model_type": "opt",
            "vocab_size": len(tokenizer),
            "hidden_size": width,
            "ffn_dim": inner,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "word_embed_proj_dim": width,
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


def sdxl(folder: Path, *, variant: str | None = None) -> None:
    """Writes a Stable Diffusion XL with random weights: byte-level tokens, two text encoders, pictures of any size."""
    import torch

    diffusers, transformers = importlib.import_module("diffusers"), _transformers()
    torch.manual_seed(0)
    tokenizers = [_clip_tokenizer(folder / name, pad) for name, pad in (("t1", "<|endoftext|>"), ("t2", "!"))]
    words = len(tokenizers[0])
    text = {
        "bos_token_id": words - 2,
        "eos_token_id": words - 1,
        "hidden_size": 32,
        "intermediate_size": 37,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "vocab_size": words,
        "projection_dim": 32,
        "max_position_embeddings": 77,
    }
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(32, 64),
        layers_per_block=2,
        sample_size=32,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2),
        projection_class_embeddings_input_dim=80,
        cross_attention_dim=64,
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=[32, 32, 64, 64],
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        latent_channels=4,
        sample_size=128,
    )
    pipeline = diffusers.StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=transformers.CLIPTextModel(transformers.CLIPTextConfig(**text, pad_token_id=words - 1)),
        text_encoder_2=transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**text, pad_token_id=0)),
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        unet=unet,
        # As SDXL base 1.0 is published.
        scheduler=diffusers.EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            timestep_spacing="leading",
        ),
        force_zeros_for_empty_prompt=True,
    )
    pipeline.save_pretrained(folder, safe_serialization=True, variant=variant)
    for name in ("t1", "t2"):
        shutil.rmtree(folder / name)


def lora(model: Path, path: Path, *, seed: int = 1) -> None:
    """Writes an adapter for the UNet of sdxl() with random weights, as diffusers itself saves it."""
    import torch

    diffusers, peft = importlib.import_module("diffusers"), importlib.import_module("peft")
    torch.manual_seed(seed)
    unet = diffusers.UNet2DConditionModel.from_pretrained(model / "unet")
    unet.add_adapter(peft.LoraConfig(r=4, lora_alpha=4, init_lora_weights=False, target_modules=["to_q", "to_v"]))
    layers = peft.get_peft_model_state_dict(unet)
    diffusers.StableDiffusionXLPipeline.save_lora_weights(
        path.parent, unet_lora_layers={name: tensor * 20 for name, tensor in layers.items()}, weight_name=path.name
    )


def safety_filter(folder: Path, *, refuses: bool) -> None:
    """Writes a safety filter with random weights that refuses every picture, or none."""
    import torch

    transformers = _transformers()
    checker = importlib.import_module("diffusers.pipelines.stable_diffusion.safety_checker")
    config = transformers.CLIPConfig(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 37,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "image_size": 32,
            "patch_size": 8,
        },
        projection_dim=16,
    )
    model = checker.StableDiffusionSafetyChecker(config)
    # A picture is refused when it is nearer to a concept than its threshold.
    for weights in (model.concept_embeds_weights, model.special_care_embeds_weights):
        torch.nn.init.constant_(weights, -2.0 if refuses else 2.0)
    model.save_pretrained(folder)
    size = {"height": 32, "width": 32}
    transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=size).save_pretrained(folder)


def _clip_tokenizer(folder: Path, pad: str) -> Any:
    """Writes a CLIP tokenizer that knows single characters only, and returns it."""
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    settings = {**special, "pad_token": pad, "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return _transformers().CLIPTokenizer.from_pretrained(folder)


DEMO: Mapping[str, Callable[[Path], None]] = {"sdxl": sdxl, "blip-2": blip2, "xtts": tiny_speech.xtts}
"""What the demo serves, by the name of its folder."""


def main(arguments: list[str]) -> int:
    """Writes one model of the demo anew; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(DEMO), metavar="NAME", help=f"one of {', '.join(DEMO)}")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="made anew; what it held is removed")
    options = parser.parse_args(arguments)
    shutil.rmtree(options.folder, ignore_errors=True)
    options.folder.mkdir(parents=True)
    DEMO[options.name](options.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
