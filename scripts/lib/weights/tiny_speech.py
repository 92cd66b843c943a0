"""Tiny text-to-speech models with random weights, in the true layout of coqui-tts. See tiny.py."""

# ruff: noqa: PLC0415, S106 - as in tiny.py

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any


def _coqui(*modules: str) -> list[Any]:
    """Imports modules of coqui-tts in the way of the image."""
    importlib.import_module("aiservice_speech_synthesis.coqui").prepare()
    return [importlib.import_module(f"TTS.{module}") for module in modules]


def xtts(
    folder: Path,
    *,
    languages: tuple[str, ...] = ("en", "de", "fr", "zh-cn", "ja"),
    old: bool = False,
    audio_tokens: int = 24,
) -> None:
    """Writes an XTTS with random weights: letters as tokens, two voices. Some 90 MB: its decoder has one size only.

    `old`: the checkpoint holds its configuration as an object, as the published one does.
    `audio_tokens`: after which a stretch of speech ends at the latest; 24 are a second.
    """
    import torch
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import BPE

    configs, xtts = _coqui("tts.configs.xtts_config", "tts.models.xtts")
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
        gpt_max_audio_tokens=audio_tokens,
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
        with xtts._legacy_safe_globals():  # noqa: SLF001 - under the names of the release that published them
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


def vits(folder: Path, *, speakers: tuple[str, ...] = (), espeak: bool = False) -> None:
    """Writes a VITS with random weights: English letters or, with espeak, its phonemes; a table of speakers if any."""
    import torch

    configs, vits = _coqui("tts.configs.vits_config", "tts.models.vits")
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


def yourtts(folder: Path) -> None:
    """Writes a YourTTS with random weights: a VITS of two languages that takes a voice as a vector, and its encoder."""
    import torch

    configs, vits = _coqui("tts.configs.vits_config", "tts.models.vits")
    [encoders] = _coqui("encoder.configs.speaker_encoder_config")
    [setup] = _coqui("encoder.utils.generic_utils")
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


def glow_tts(folder: Path) -> None:
    """Writes a Glow-TTS with random weights, and a HiFi-GAN beside it that makes sound of its spectrograms."""
    import torch

    configs, glow = _coqui("tts.configs.glow_tts_config", "tts.models.glow_tts")
    [hifigan] = _coqui("vocoder.configs.hifigan_config")
    [setup] = _coqui("vocoder.models")
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
