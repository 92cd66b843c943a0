"""Which languages a recogniser of PaddleOCR reads: those that PaddleOCR names for it, as far as it has their letters.

PaddleOCR calls a recogniser LANGUAGES_PP-OCRvN_SIZE_rec, and tells for which languages to take which (its documentation
of PP-OCRv5 and PP-OCRv6, and the module paddleocr._utils.langs). That alone would promise too much: the dictionary of
PP-OCRv6, named for Vietnamese, has next to none of its letters. Languages are codes of ISO 639-1.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, TypeVar

from aiservice_runtime import InvalidRequestError

_LATIN = "abcdefghijklmnopqrstuvwxyz"
_RUSSIAN = "абвгдежзийклмнопрстуфхцчшщъыьэюя"
_SLAVIC = "абвгдежзиклмнопрстуфхцчш"
_ARABIC = "ابتجحخدرزسشصطعغفقلمنو"
_DEVANAGARI = "अआइईउएकखगघचछजटडतथदधनपफबभमयरलवशषसहािीुूेैोौ्ंँ"

# By script and language, in lower case.
_LETTERS: Mapping[str, Mapping[str, str]] = {
    "latin": {
        "af": _LATIN + "éèêëîïôöûü",
        "az": _LATIN + "çəğıöşü",
        "bs": _LATIN + "čćđšž",
        "ca": _LATIN + "àçèéíïòóúü",
        "cs": _LATIN + "áčďéěíňóřšťúůýž",
        "cy": _LATIN + "âêîôûŵŷ",
        "da": _LATIN + "åæø",
        "de": _LATIN + "äöüß",
        "en": _LATIN,
        "es": _LATIN + "áéíñóúü",
        "et": _LATIN + "äõöüšž",
        "eu": _LATIN + "ñ",
        "fi": _LATIN + "äöå",
        "fr": _LATIN + "àâæçèéêëîïôœùûü",
        "ga": _LATIN + "áéíóú",
        "gl": _LATIN + "áéíñóúü",
        "hr": _LATIN + "čćđšž",
        "hu": _LATIN + "áéíóöőúüű",
        "id": _LATIN,
        "is": _LATIN + "áæðéíóöþúý",
        "it": _LATIN + "àèéìòù",
        "ku": _LATIN + "çêîşû",
        "la": _LATIN,
        "lb": _LATIN + "äéë",
        "lt": _LATIN + "ąčęėįšųūž",
        "lv": _LATIN + "āčēģīķļņšūž",
        "mi": _LATIN + "āēīōū",
        "ms": _LATIN,
        "mt": _LATIN + "ċġħż",
        "nl": _LATIN + "éëï",
        "no": _LATIN + "åæø",
        "oc": _LATIN + "àáçèéíòóú",
        "pi": _LATIN + "āīūṃñṭḍṇḷ",
        "pl": _LATIN + "ąćęłńóśźż",
        "pt": _LATIN + "áâãàçéêíóôõú",
        "qu": _LATIN + "ñ",
        "rm": _LATIN + "àèéìòù",
        "ro": _LATIN + "ăâîșț",
        "sk": _LATIN + "áäčďéíĺľňóôŕšťúýž",
        "sl": _LATIN + "čšž",
        "sq": _LATIN + "çë",
        "sr": _LATIN + "čćđšž",
        "sv": _LATIN + "åäö",
        "sw": _LATIN,
        "tl": _LATIN + "ñ",
        "tr": _LATIN + "çğıöşü",
        "uz": _LATIN,
        "vi": _LATIN + "ăâđêôơưạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ",
    },
    "cyrillic": {
        "av": _RUSSIAN,
        "ba": _RUSSIAN + "ғҙҡңөҫүһә",
        "be": _SLAVIC + "ёіўйыьэюя",
        "bg": _SLAVIC + "щъйьюя",
        "ce": _RUSSIAN,
        "cv": _RUSSIAN + "ӑӗҫӳ",
        "kk": _RUSSIAN + "әғқңөұүһі",
        "kv": _RUSSIAN + "іӧ",
        "ky": _RUSSIAN + "ңөү",
        "mk": _SLAVIC + "ѓѕјљњќџ",
        "mn": _RUSSIAN + "өү",
        "os": _RUSSIAN + "ӕ",
        "ru": _RUSSIAN + "ё",
        "sr": _SLAVIC + "ђјљњћџ",
        "tg": _SLAVIC + "ғӣқӯҳҷ",
        "tt": _RUSSIAN + "әөүҗңһ",
        "uk": _SLAVIC + "ґєіїйщьюя",
    },
    "arabic": {
        "ar": _ARABIC + "ثذضظكهيةءى",
        "fa": _ARABIC + "پچژکگهی",
        "ku": _ARABIC + "پچژڕڤگۆێەی",
        "ps": _ARABIC + "پټڅځچډړژږښګڼېۍ",
        "sd": _ARABIC + "ٻڀٺٽپڄڃچڇڌڊڏڙڪڳڱ",
        "ug": _ARABIC + "پچژڭگھۇۆۈۋېەى",
        "ur": _ARABIC + "پٹچڈڑژکگںھہیے",
    },
    "devanagari": {
        "hi": _DEVANAGARI,
        "mr": _DEVANAGARI + "ळ",
        "ne": _DEVANAGARI,
        "sa": _DEVANAGARI + "ःऋृ",
    },
    # Of scripts with thousands of signs, and of those that one language is written in: some that every text has.
    "": {
        "zh": "的一是在不有和人上中大",
        "ja": "のにはをたがでアイウンー",
        "ko": "가나다라이는을의에한",
        # Not ό, for which the dictionary of el_PP-OCRv5 has the capital letter twice.
        "el": "αβγδεζηθικλμνξοπρστυφχψωάέήί",
        "kn": "ಅಆಇಕಗಚಜಟಡತದನಪಬಮಯರಲವಸಹ",
        "ta": "அஆஇகஙசடணதநபமயரலவழளன",
        "te": "అఆఇకగచజటడతదనపబమయరలవసహ",
        "th": "กขคงจชซดตถทนบปผพฟมยรลวสหอ",
    },
}

_NAME = re.compile(r"(?:(?P<group>[a-z_]+)_)?PP-OCRv(?P<version>[0-9]+)_(?P<size>[a-z]+)_rec(?P<variant>_doc)?")
# The script of a group of languages, and those of them that it is for; None: all.
_GROUPS: Mapping[str, tuple[str, Collection[str] | None]] = {
    "arabic": ("arabic", None),
    "chinese_cht": ("", ("zh",)),
    "cyrillic": ("cyrillic", None),
    "devanagari": ("devanagari", None),
    "el": ("", ("el",)),
    "en": ("latin", ("en",)),
    "eslav": ("cyrillic", ("be", "ru", "uk")),
    "japan": ("", ("ja",)),
    "ka": ("", ("kn",)),  # PaddleOCR's own code of Kannada
    "korean": ("", ("ko",)),
    "latin": ("latin", None),
    "ta": ("", ("ta",)),
    "te": ("", ("te",)),
    "th": ("", ("th",)),
}
# From PP-OCRv5 on these are documented for English as well.
_WITH_ENGLISH = {"el", "eslav", "korean", "th"}
_ENGLISH = ("latin", "en")
_CHINESE = ("", "zh")
_JAPANESE = ("", "ja")
_OTHER_NAMES = {"ch_RepSVTR_rec": {_CHINESE, _ENGLISH}, "ch_SVTRv2_rec": {_CHINESE, _ENGLISH}}

_Written = tuple[str, str]
"""A script and a language."""


class Reads(Protocol):
    """What can read some languages."""

    @property
    def name(self) -> str:
        """As PaddleOCR knows it."""

    @property
    def languages(self) -> frozenset[str]:
        """That it reads."""


ReadsT = TypeVar("ReadsT", bound=Reads)


def read_by(name: str, characters: Collection[str]) -> frozenset[str]:
    """Returns the languages that a recogniser reads, by its name and by the characters in its dictionary.

    Of a name that is not PaddleOCR's: all whose letters are there.
    """
    named = _named(name)
    known = set(characters)
    return frozenset(
        language
        for script, languages in _LETTERS.items()
        for language, letters in languages.items()
        if (named is None or (script, language) in named) and known.issuperset(letters)
    )


def _named(name: str) -> Collection[_Written] | None:
    """Returns what PaddleOCR names a recogniser for; None where it has none of that name."""
    found = _NAME.fullmatch(name)
    if found is None:
        return _OTHER_NAMES.get(name)
    group, version = found["group"], int(found["version"])
    if group is None:
        return _of_all_purpose(version, found["size"], documents=found["variant"] is not None)
    if group not in _GROUPS:
        return None
    script, languages = _GROUPS[group]
    named = {(script, language) for language in (_LETTERS[script] if languages is None else languages)}
    return named | {_ENGLISH} if group in _WITH_ENGLISH and version >= 5 else named


def _of_all_purpose(version: int, size: str, *, documents: bool) -> Collection[_Written]:
    """Returns what a recogniser without languages in its name is for."""
    named = {_CHINESE, _ENGLISH}
    if version >= 5 or documents:
        named.add(_JAPANESE)
    if version >= 6:
        named |= {("latin", language) for language in _LETTERS["latin"]}
        named -= {("latin", "pi")} | ({_JAPANESE} if size == "tiny" else set())
    return named


def choose(recognisers: Sequence[ReadsT], languages: Collection[str]) -> ReadsT:
    """Returns the recogniser that reads all these languages, and as few others as may be.

    Without languages: the one that reads most. Of equal ones the first by name. Raises InvalidRequestError when none
    does, with what can be read.
    """
    if not languages:
        return min(recognisers, key=lambda each: (-len(each.languages), each.name))
    able = [each for each in recognisers if each.languages.issuperset(languages)]
    if able:
        return min(able, key=lambda each: (len(each.languages), each.name))
    known = frozenset[str]().union(*(each.languages for each in recognisers))
    unread = set(languages) - known
    if unread:
        raise InvalidRequestError(
            f"Nothing here reads {_listed(unread)}; languages (ISO 639-1) can be {_listed(known)}."
        )
    together = "; or ".join(_listed(each.languages) for each in recognisers)
    raise InvalidRequestError(f"Nothing here reads {_listed(languages)} together; languages can be {together}.")


def _listed(languages: Collection[str]) -> str:
    return ", ".join(sorted(languages))
