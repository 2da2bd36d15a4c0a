"""Finds problems in reference captions from their text alone."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = [
    "LengthGate",
    "ReferenceFindings",
    "find_problems",
    "has_opener",
    "is_refusal",
    "language_of",
    "without_opener",
]

_APOSTROPHE = "['\N{RIGHT SINGLE QUOTATION MARK}]"
_I_AM = rf"i{_APOSTROPHE}?\s*a?m"
# How refusals begin, in each language that `language_of` knows. No caption begins like that.
_REFUSALS = (
    rf"{_I_AM} (?:very |so |truly )?sorry|sorry,|i apologi[sz]e|(?:my )?apologies,"
    rf"|(?:unfortunately,? )?i (?:can{_APOSTROPHE}?t|can ?not|won{_APOSTROPHE}?t|will not)"
    r" (?:help|assist|describe|view|see|identify|provide|comply|process|analy[sz]e|be able)"
    rf"|(?:unfortunately,? )?{_I_AM} (?:unable|not (?:able|comfortable|going))"
    rf"|i (?:do not|don{_APOSTROPHE}t) (?:have the ability|feel comfortable|see (?:an|any) image)"
    r"|as an ai\b|as a (?:large )?language model"
    r"|please (?:provide|upload|share|attach) ",
    r"(?:es )?tut mir (?:sehr )?leid|leider kann ich|entschuldigung|ich kann (?:\w+ ){0,4}nicht"
    r"|ich bin nicht in der lage|als ki\b",
    r"(?:je suis )?(?:vraiment )?désolée?\b|(?:malheureusement,? )?je ne (?:peux|suis)"
    rf"|en tant qu{_APOSTROPHE}(?:ia|intelligence)\b",
    r"lo (?:siento|lamento)|(?:lamentablemente,? )?no puedo|disculp[ae]|como (?:una )?ia\b",
    r"mi (?:dispiace|spiace)|(?:purtroppo,? )?non posso|sono spiacente",
    r"(?:me )?desculpe|sinto muito|lamento|(?:infelizmente,? )?(?:eu )?não (?:posso|consigo)",
    r"het spijt me|helaas kan ik|ik kan (?:\w+ ){0,4}niet",
    r"извините|простите|мне (?:очень )?жаль|(?:к сожалению,? )?я не могу",
    r"(?:很|非常|十分)?抱歉|对不起|對不起|我(?:无法|無法|不能)",
    r"申し訳|すみません|ごめんなさい",
    r"죄송|미안",
    r"عذر|آسف|أعتذر|لا (?:أستطيع|يمكنني)",
    r"क्षमा|मुझे (?:खेद|माफ़)|माफ़",
    r"מצטער|סליחה",
    r"λυπάμαι|συγγνώμη",
    r"ขออภัย|ขอโทษ",
)
# Not after a quotation mark: that is what a sign in the image says.
_REFUSAL = re.compile(rf"""[^\w"'“”„«»‘’「]*(?:{"|".join(_REFUSALS)})""", re.IGNORECASE)
_PICTURE = r"(?:image|photo|photograph|picture|painting|illustration|drawing|scene)"
_SHOWS = (
    r"(?:shows?|depicts?|features?|captures?|presents?|displays?|portrays?|illustrates?|contains?|"
    r"is of)"
)
_OPENER = re.compile(
    rf"^\W*(?:in (?:this|the) {_PICTURE}\b|(?:this|the) (?:(?!in |of |on )\w+[ -]){{0,4}}{_PICTURE}"
    rf" (?:\w+ly )?{_SHOWS}\b)",
    re.IGNORECASE,
)
_SAFE_OPENER = re.compile(rf"^\W*in (?:this|the) {_PICTURE}\s*,\s*", re.IGNORECASE)

# Words that make up a third of any text in their language, but not in the others here.
_WORDS = {
    "English": "the and of is with on are to its",
    "German": "der die und ist mit das auf ein eine",
    "French": "le les des est une dans et sur avec",
    "Spanish": "el los las una con está del y sobre",
    "Italian": "il gli di una che con sono nel è",
    "Portuguese": "os uma com está na do da em ao",
    "Dutch": "het een van met op zijn en de is",
}
_LANGUAGE_WORDS = {name: frozenset(words.split()) for name, words in _WORDS.items()}
_SCRIPTS = {
    "CJK": "Chinese",
    "HIRAGANA": "Japanese",
    "KATAKANA": "Japanese",
    "HANGUL": "Korean",
    "CYRILLIC": "Cyrillic script",
    "ARABIC": "Arabic script",
    "DEVANAGARI": "Devanagari script",
    "HEBREW": "Hebrew",
    "GREEK": "Greek",
    "THAI": "Thai",
}


def is_refusal(text: str) -> bool:
    """
    Whether a text begins like a model's refusal.

    Example:

    ```python
    >>> is_refusal("I'm sorry, but I can't help with that."), is_refusal("A sorry sight of a tent.")
    (True, False)

    ```
    """
    return _REFUSAL.match(text) is not None


def has_opener(text: str) -> bool:
    """
    Whether a caption begins by talking about the picture rather than what is in it.

    Example:

    ```python
    >>> has_opener("This image shows a dog."), has_opener("A dog looks at a picture.")
    (True, False)

    ```
    """
    return _OPENER.match(text) is not None


def without_opener(text: str) -> str:
    """
    The caption without "In this image," at its start; other openers cannot be removed safely.

    Example:

    ```python
    >>> without_opener("In this image, a dog sleeps."), without_opener("The image shows a dog.")
    ('A dog sleeps.', 'The image shows a dog.')

    ```
    """
    rest = _SAFE_OPENER.sub("", text)
    return rest if rest == text else rest[:1].upper() + rest[1:]


def language_of(text: str) -> str | None:
    """
    The language of a caption by its script and most common words, `None` if they do not tell.

    Example:

    ```python
    >>> language_of("A dog is on the mat."), language_of("Der Hund liegt auf der Matte.")
    ('English', 'German')
    >>> language_of("窓の外は雨。"), language_of("Red.")
    ('Japanese', None)

    ```
    """
    scripts: Counter[str] = Counter()
    for character in text:
        if character.isalpha():
            scripts[unicodedata.name(character, "?").split(" ")[0].split("-")[0]] += 1
    if not scripts:
        return None
    if any(name in scripts for name in ("HIRAGANA", "KATAKANA")):
        return "Japanese"  # which also uses Chinese characters
    script = scripts.most_common(1)[0][0]
    if script != "LATIN":
        return _SCRIPTS.get(script)
    words = re.findall(r"[^\W\d_]+", text.casefold())
    hits = {name: sum(w in known for w in words) for name, known in _LANGUAGE_WORDS.items()}
    first, second = sorted(hits.values(), reverse=True)[:2]
    return max(hits, key=lambda name: hits[name]) if first > second else None


@dataclass(frozen=True)
class LengthGate:
    """
    The recipe's limits on caption length.

    Args:
        max_completion_length (`int`, *optional*, defaults to `512`):
            Maximum tokens of a caption.
        lower (`float`, *optional*, defaults to `0.5`):
            Smallest ratio of caption to reference length that passes the gate.
    """

    max_completion_length: int = 512
    lower: float = 0.5

    def __post_init__(self):
        if self.max_completion_length < 1:
            raise ValueError(
                f"max_completion_length must be 1 or more, got {self.max_completion_length}."
            )
        if not self.lower >= 0:
            raise ValueError(f"The gate's lower bound must be 0 or more, got {self.lower}.")

    def closed(self, tokens: int) -> bool:
        """Whether no caption the policy can write is long enough for such a reference."""
        return self.lower * tokens > self.max_completion_length


@dataclass(frozen=True)
class ReferenceFindings:
    """
    Problems found in references.

    Args:
        problems (`Mapping[int, list[str]]`):
            Problems by row index: any of "bad image", "empty", "refusal", "opener",
            "duplicate", "language", "too long".
        tokens (`list[int]`):
            Length of each reference.
        languages (`Mapping[str, int]`):
            Number of references in each language.
    """

    problems: Mapping[int, list[str]]
    tokens: list[int]
    languages: Mapping[str, int]
    counts: Mapping[str, int] = field(init=False)

    def __post_init__(self):
        counts = Counter(problem for found in self.problems.values() for problem in found)
        object.__setattr__(self, "counts", dict(counts))


def find_problems(
    references: Sequence[str],
    images: Sequence[str | None],
    *,
    count_tokens: Callable[[str], int],
    gate: LengthGate | None = None,
    bad_images: Collection[int] = (),
) -> ReferenceFindings:
    """
    Find problems that the text alone shows: references that are empty, refusals, openers such as
    "in this image", the same text for several images, a different language than most, or so long
    that the length gate closes on every caption the policy can write.

    Args:
        references (`Sequence[str]`):
            The references.
        images (`Sequence[str]`):
            The image of each; the same text for the same image is not a duplicate.
        count_tokens (`Callable[[str], int]`):
            Counts the policy's tokens in a text.
        gate ([`LengthGate`], *optional*):
            Limits on caption length.
        bad_images (`Collection[int]`, *optional*):
            Indices of rows whose image cannot be read.

    Returns:
        [`ReferenceFindings`]

    Example:

    ```python
    >>> found = find_problems(
    ...     ["A dog sleeps on the mat.", "I'm sorry, I can't.", ""], ["a", "b", "c"],
    ...     count_tokens=lambda text: len(text.split()),
    ... )
    >>> found.problems
    {1: ['refusal'], 2: ['empty']}

    ```
    """
    gate = gate or LengthGate()
    normal = [" ".join(text.casefold().split()) for text in references]
    shown_by: dict[str, set[str | None]] = {}
    for text, image in zip(normal, images, strict=True):
        shown_by.setdefault(text, set()).add(image)
    spoken = [language_of(text) for text in references]
    languages = Counter(language for language in spoken if language is not None)
    most = languages.most_common(1)[0][0] if languages else None
    tokens = [count_tokens(text) for text in references]
    problems: dict[int, list[str]] = {}
    for row, text in enumerate(references):
        found = ["bad image"] * (row in bad_images)
        if not text.strip():
            found += ["empty"]
        else:
            found += ["refusal"] * is_refusal(text)
            found += ["opener"] * has_opener(text)
            found += ["duplicate"] * (len(shown_by[normal[row]]) > 1)
            found += ["language"] * (spoken[row] not in (None, most))
            found += ["too long"] * gate.closed(tokens[row])
        if found:
            problems[row] = found
    return ReferenceFindings(problems, tokens, dict(languages))
