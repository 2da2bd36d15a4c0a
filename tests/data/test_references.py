"""What text alone shows to be wrong with a reference."""

import pytest

from trl_balcap.data.references import (
    LengthGate,
    find_problems,
    has_opener,
    is_refusal,
    language_of,
    without_opener,
)


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I\u2019m sorry, I can\u2019t describe people.",
        "Sorry, this request is not possible.",
        "I cannot view images.",
        "I am unable to see the picture.",
        "As an AI, I do not see.",
        "**I apologize**, but this is not something that I describe.",
        "Unfortunately, I can't identify people.",
        "I don't see an image. Please upload it.",
        "Es tut mir leid, aber dabei kann ich nicht helfen.",
        "Ich kann dieses Bild leider nicht beschreiben.",
        "Je suis désolée, mais je ne peux pas décrire cette image.",
        "Lo siento, no puedo ayudar con eso.",
        "Mi dispiace, ma non posso aiutarti.",
        "Desculpe, não posso ajudar com isso.",
        "Het spijt me, maar ik kan deze foto niet beschrijven.",
        "К сожалению, я не могу описать это изображение.",
        "很抱歉，我无法描述这张图片。",
        "申し訳ありませんが、お手伝いできません。",
        "죄송하지만 이 이미지는 설명할 수 없습니다.",
        "عذرًا، لا أستطيع وصف هذه الصورة.",
        "क्षमा करें, मैं इस चित्र का वर्णन नहीं कर सकता।",
        "מצטער, איני יכול לעזור.",
        "Λυπάμαι, δεν μπορώ να βοηθήσω.",
        "ขออภัย ฉันไม่สามารถช่วยได้",
    ],
)
def test_a_refusal(text):
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "A sorry-looking scarecrow stands in a field.",
        "I Can See For Miles is written on the sleeve.",
        "A sign says: I'm sorry, we are closed.",
        '"Sorry, we are closed," says a sign on the door.',
        "Les désolées rues de la ville sont vides.",
        "Der Hund kann nicht springen.",
        "我们看到一只狗。",
        "As an aircraft passes, a child waves.",
    ],
)
def test_no_refusal(text):
    assert not is_refusal(text)


@pytest.mark.parametrize(
    ("text", "opens"),
    [
        ("In this image, a dog sleeps.", True),
        ("The image shows a dog.", True),
        ("This black and white photograph depicts a dog.", True),
        ("The photo captures a moment.", True),
        ("A dog sleeps in this image.", False),
        ("The picture frame shows wear.", False),
        ("In the foreground, a dog sleeps.", False),
    ],
)
def test_an_opener(text, opens):
    assert has_opener(text) is opens


def test_an_opener_is_cut_off_only_where_a_sentence_is_left():
    assert without_opener("In the photo, two boats lie still.") == "Two boats lie still."
    for text in ("In this image there are boats.", "The image shows boats.", "Boats lie still."):
        assert without_opener(text) == text


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("A red boat is on the lake, and the sky is clear.", "English"),
        ("Ein rotes Boot liegt auf dem See, und der Himmel ist klar.", "German"),
        ("Un bateau rouge est sur le lac, et les arbres sont verts.", "French"),
        ("Una barca roja está en el lago y los árboles son verdes.", "Spanish"),
        ("窓の外は雨。", "Japanese"),
        ("湖上有一条红船。", "Chinese"),
        ("호수 위에 빨간 배가 있다.", "Korean"),
        ("На озере красная лодка.", "Cyrillic script"),
        ("Boats.", None),
        ("12:45", None),
    ],
)
def test_the_language_of_a_caption(text, language):
    assert language_of(text) == language


def test_problems_by_row():
    """5 words a token each; the gate from 0.5 closes where half the words are over 3: 7 or more."""
    texts = [
        "A dog is on the mat.",
        "A dog  is on THE mat.",
        "A dog is on the mat.",
        "",
        "Der Hund ist auf der Matte.",
        "One two three four five six seven eight.",
    ]
    found = find_problems(
        texts,
        ["1.jpg", "2.jpg", "2.jpg", "3.jpg", "4.jpg", "5.jpg"],
        count_tokens=lambda text: len(text.split()),
        gate=LengthGate(max_completion_length=3, lower=0.5),
    )
    assert found.problems == {
        0: ["duplicate"],
        1: ["duplicate"],
        2: ["duplicate"],
        3: ["empty"],
        4: ["language"],
        5: ["too long"],
    }
    assert found.counts == {"duplicate": 3, "empty": 1, "language": 1, "too long": 1}
    assert found.languages == {"English": 3, "German": 1}


def test_the_same_text_twice_at_one_image_is_no_duplicate():
    found = find_problems(["A dog."] * 2, ["1.jpg"] * 2, count_tokens=len)
    assert found.problems == {}
