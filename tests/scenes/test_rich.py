"""The rich world: what is true of it, how it is said, and how the exact judge reads it."""

import io
import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.scenes.things import seeds
from trl_balcap.scenes.authors import WEAK_AUTHORS
from trl_balcap.scenes.claims import (
    RELATIONS,
    BackgroundClaim,
    CountClaim,
    DotClaim,
    Kind,
    KindCountClaim,
    RelationClaim,
    ThingClaim,
)
from trl_balcap.scenes.grammar import Faults, describe, faulty_caption, reference
from trl_balcap.scenes.lexicon import NUMBERS, WORDS, hedge, say
from trl_balcap.scenes.oracle import Scores, score
from trl_balcap.scenes.parsing import parse_caption, parse_sentence
from trl_balcap.scenes.rules import covered, decompose, linguistic, verdict
from trl_balcap.scenes.sight import read_scene
from trl_balcap.scenes.world import (
    BACKGROUNDS,
    COLOURS,
    RICHNESS,
    SHAPES,
    SIZES,
    Scene,
    Thing,
    draw,
    random_scene,
)

RICH = RICHNESS["rich"]
DISC = Thing("red", "circle", "large", "top", "far left", dotted=True)
STAR = Thing("red", "star", "large", "top", "near left")
BOX = Thing("blue", "square", "small", "upper", "far left")
THREE = Scene((DISC, STAR, BOX), "rich", "pink")

scenes = seeds.map(lambda seed: random_scene(random.Random(seed), richness="rich"))
kinds = st.builds(
    Kind,
    st.none() | st.sampled_from(sorted(COLOURS)),
    st.none() | st.sampled_from(SHAPES),
    st.none() | st.sampled_from(SIZES),
)
claims = st.one_of(
    st.builds(
        lambda cell, kind, well_formed: ThingClaim(
            *RICH.place(cell), kind.colour, kind.shape, kind.size, well_formed
        ),
        st.integers(0, 15),
        kinds,
        st.booleans(),
    ),
    st.builds(CountClaim, st.integers(1, 16), st.booleans()),
    st.builds(BackgroundClaim, st.sampled_from(sorted(BACKGROUNDS)), st.booleans()),
    st.builds(
        KindCountClaim, st.integers(1, 16), kinds.filter(lambda k: k != Kind()), st.booleans()
    ),
    st.builds(DotClaim, kinds, st.booleans()),
    st.builds(RelationClaim, st.sampled_from(RELATIONS), kinds, kinds, st.booleans()),
)


@given(claim=claims, seed=seeds)
@settings(max_examples=300)
def test_every_wording_reads_back_to_its_claim(claim, seed):
    rng = random.Random(seed)
    sentence = say(claim, rng)
    assert parse_sentence(sentence) == claim
    assert parse_sentence(say(claim)) == claim
    assert parse_sentence(hedge(sentence, rng)) == claim


@given(scene=scenes, seed=seeds)
@settings(max_examples=60, deadline=None)
def test_all_that_is_told_is_true_and_implies_the_reference(scene, seed):
    rng = random.Random(seed)
    told, referred = describe(scene, rng), reference(scene, rng)
    for claim in parse_caption(told) + parse_caption(referred):
        assert claim is not None
        assert claim.well_formed
        assert claim.holds_in(scene)
    assert score(told, referred, scene) == Scores(1.0, 1.0, 1.0)
    assert score(referred, referred, scene) == Scores(1.0, 1.0, 1.0)
    recall = score(referred, told, scene).recall
    assert recall is not None
    assert recall < 0.75


def test_a_reference_has_80_to_250_words_and_says_less_than_half_of_what_is_true():
    rng = random.Random(0)
    shares = []
    for _ in range(200):
        scene = random_scene(rng, richness="rich")
        words = reference(scene, rng).replace(".", " .").split()  # one token each
        assert 80 <= len(words) <= 250
        shares.append(len(words) / len(describe(scene, rng).replace(".", " .").split()))
    assert 0.25 < sum(shares) / len(shares) < 0.5


def test_what_is_true_of_three_things():
    assert describe(THREE) == (
        "The background is pink. There are three things. There are two red things. "
        "There is one blue thing. There is one circle. There is one star. There is one square. "
        "At the top far left there is a large red circle. "
        "A white dot is part of the large red circle. "
        "At the top near left there is a large red star. "
        "The large red circle is left of the large red star. "
        "The large red circle touches the large red star. "
        "The large red circle has the same colour as the large star beside it. "
        "At the upper far left there is a small blue square. "
        "The large red circle is above the small blue square."
    )


@pytest.mark.parametrize(
    ("text", "correct"),
    [
        ("A huge crimson disc can be seen at the top far left.", True),
        ("A tiny crimson disc can be seen at the top far left.", False),
        ("Two objects are in the picture.", False),
        ("The picture has two crimson objects.", True),
        ("Everything stands on pink ground.", True),
        ("The things are set against aqua.", False),
        ("The star is right of the circle.", True),
        ("The star is left of the circle.", False),
        ("Under the big disc comes the cobalt box.", True),
        ("The star is in contact with the circle.", True),
        ("The circle is in contact with the square.", False),  # only large things touch
        ("The star matches the colour of the disc beside it.", True),
        ("The square matches the colour of the disc beside it.", False),
        ("The crimson disc carries a white dot.", True),
        ("The star has a white dot.", False),
        ("Perhaps the background is pink.", True),
        ("It seems that the background is grey.", False),
    ],
)
def test_verdicts_on_paraphrases(text, correct):
    assert verdict(text, THREE) == (correct, True)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("There are two crimson object.", id="number"),
        pytest.param("There are zero stars.", id="none"),
        pytest.param("the background is pink.", id="no capital"),
        pytest.param("The middle far left shows a star.", id="row of the other board"),
        pytest.param("The top left shows a crimson star.", id="synonym on the other board"),
        pytest.param("The star is left of.", id="cut off"),
        pytest.param("Perhaps perhaps the background is pink.", id="two hedges"),
        pytest.param("The background is red.", id="not a background"),
    ],
)
def test_text_outside_the_rich_grammar(text):
    assert parse_sentence(text) is None


def test_every_synonym_is_understood():
    for name, values in WORDS.items():
        for value, words in values.items():
            for word in words:
                noun = word if name == "shape" else f"{word} thing"
                claim = parse_sentence(f"The top far left shows a {noun}.")
                assert isinstance(claim, ThingClaim)
                assert getattr(claim, name) == value


def test_paraphrases_are_one_assertion_and_what_is_implied_is_none():
    assert decompose("The background is pink. Everything stands on pink ground.") == [
        "The background is pink."
    ]
    assert decompose(
        "The circle is left of the star. The red thing is left of the star. "
        "The star is right of the red circle."
    ) == ["The star is right of the red circle."]
    assert decompose(
        "The top far left shows a disc. There is a red thing at the top far left."
    ) == ["At the top far left there is a red circle."]
    assert decompose("There are two stars. There are three stars.") == [
        "There are two stars.",
        "There are three stars.",
    ]


def test_a_claim_covers_a_weaker_one():
    assertions = ["The large red circle touches the large star.", "There are two red things."]
    units = [
        "The star touches the red circle.",
        "The blue star touches the circle.",
        "The picture has two crimson objects.",
        "There are two things.",
        "The circle is left of the star.",
    ]
    assert covered(assertions, units) == [True, False, True, False, False]


@given(scene=scenes, one=claims, other=claims)
@settings(max_examples=300, deadline=None)
def test_what_a_true_claim_implies_is_true(scene, one, other):
    if one.holds_in(scene) and one.implies(other):
        assert other.holds_in(scene)
    assert one.implies(one)


def test_order_by_rows_or_by_columns_reads_well():
    cells = ["top far left", "upper far left", "top near left"]  # by columns
    by_columns = " ".join(f"The {cell} shows a star." for cell in cells)
    assert linguistic(by_columns).coherency == 10.0
    zigzag = " ".join(f"The {cell} shows a star." for cell in (cells[1], cells[2], cells[0]))
    assert linguistic(zigzag).coherency == 5.0
    # An overview first or last is in order, one in the middle is not.
    assert linguistic(f"There are six things. The background is pink. {by_columns}").coherency == 10
    assert linguistic(f"{by_columns} There are six things.").coherency == 10.0
    broken_up = by_columns.replace("star. ", "star. There are six things. ", 1)
    assert linguistic(broken_up).coherency == pytest.approx(10 * 2 / 3)


def encoded(image: Image.Image, form: str, **options) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return Image.open(io.BytesIO(buffer.getvalue()))


@pytest.mark.parametrize("background", sorted(BACKGROUNDS))
def test_everything_that_can_stand_somewhere_is_read_from_the_picture(background):
    things = list(itertools.product(COLOURS, SHAPES, SIZES))
    for shift, dotted in ((0, False), (16, True), (32, True)):
        cells = [
            Thing(*things[(cell + shift) % 48], *RICH.place(cell), dotted=dotted)
            for cell in range(16)
        ]
        scene = Scene(tuple(cells), "rich", background)
        image = draw(scene)
        assert read_scene(image) == scene
        assert read_scene(image.resize((300, 300))) == scene
        assert read_scene(encoded(image, "JPEG", quality=80)) == scene
        assert read_scene(draw(scene, large=True)) == scene


@given(scene=scenes)
@settings(max_examples=30, deadline=None)
def test_a_rich_scene_reads_back_from_its_pixels(scene):
    assert read_scene(draw(scene)) == scene


def test_a_rich_scene_says_what_does_not_belong_to_it():
    with pytest.raises(ValueError, match="rich scene has background='red', but must have one of"):
        Scene((), "rich", "red")
    with pytest.raises(ValueError, match="small scene has background='pink', but must have none"):
        Scene((), "small", "pink")
    with pytest.raises(ValueError, match="top left is not on the rich board"):
        Scene((Thing("red", "star", "large", "top", "left"),), "rich", "pink")
    with pytest.raises(ValueError, match="dotted=True"):
        Thing("red", "star", "large", "top", "left", dotted=True)
    with pytest.raises(ValueError, match="the board has 16 cells"):
        random_scene(random.Random(0), (3, 17), "rich")


def test_a_small_scene_looks_as_it_did_before_there_was_a_rich_one():
    thing = Thing("red", "star", "large", "top", "left")
    assert repr(Scene((thing,))) == (
        "Scene(things=(Thing(colour='red', shape='star', size='large', row='top', column='left'),))"
    )
    assert "dotted=True" in repr(DISC)
    assert "background='pink'" in repr(THREE)


@pytest.mark.parametrize("name", list(Faults.__dataclass_fields__))
def test_every_fault_can_be_read_and_shows(name):
    rng = random.Random(0)
    scene = random_scene(rng, richness="rich")
    faulty = faulty_caption(scene, random.Random(1), Faults(**{name: 1.0}))
    assert None not in parse_caption(faulty)
    assert faulty != faulty_caption(scene, random.Random(1), Faults())
    assert faulty == faulty_caption(scene, random.Random(1), Faults(**{name: 1.0}))


def test_numbers_reach_as_far_as_the_board():
    assert NUMBERS[RICH.cells] == "sixteen"


@pytest.mark.parametrize(
    ("length", "low", "high"), [("short", 0.2, 0.45), ("right", 0.8, 1.2), ("long", 2.5, 3.5)]
)
def test_weak_authors_are_as_long_as_their_names_and_err(length, low, high):
    rng = random.Random(0)
    ratios, scores = [], []
    for _ in range(60):
        scene = random_scene(rng, richness="rich")
        caption, referred = WEAK_AUTHORS[length](scene, rng), reference(scene, rng)
        assert None not in parse_caption(caption)
        ratios.append(len(caption.split()) / len(referred.split()))
        scores.append(score(caption, referred, scene))
    assert low < sum(ratios) / len(ratios) < high
    assert 0.3 < sum(each.precision for each in scores) / 60 < 0.8
    assert sum(each.linguistic for each in scores) / 60 < 0.99
