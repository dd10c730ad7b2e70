"""Questions are spread over types and images, and chosen the same way every time."""

from collections import Counter

import pytest
from PIL import Image

from prunus.analyse.questions import about_same_images, every_prompt, spread
from prunus.evaluate import EvalSet, load_builtin_set


@pytest.fixture(scope="module")
def questions() -> EvalSet:
    return load_builtin_set()


def test_types_and_images_take_turns(questions: EvalSet) -> None:
    chosen = spread(questions, 84)
    kinds = Counter(query.type for query in chosen.queries)
    assert len(chosen.queries) == 84 and set(kinds.values()) == {12}
    assert max(Counter(query.image for query in chosen.queries).values()) == 1
    numbers = [questions.queries.index(query) for query in chosen.queries]
    assert numbers == sorted(numbers)
    assert numbers[-1] > 2000, "not the first questions only"


def test_seeds_choose_other_questions(questions: EvalSet) -> None:
    assert spread(questions, 20).queries == spread(questions, 20).queries
    assert spread(questions, 20).queries != spread(questions, 20, seed=1).queries


def test_no_more_than_there_are(questions: EvalSet) -> None:
    assert spread(questions.first(5), 50).queries == questions.queries[:5]
    uneven = spread(questions, 10)  # seven types: three of them twice
    kinds = Counter(query.type for query in uneven.queries)
    assert sorted(kinds.values()) == [1, 1, 1, 1, 2, 2, 2]


def test_a_limit_that_leaves_nothing(questions: EvalSet) -> None:
    with pytest.raises(ValueError, match="limit=0"):
        spread(questions, 0)


def test_several_questions_about_the_same_images(questions: EvalSet) -> None:
    chosen = about_same_images(questions, images=3, each=4)
    counts = Counter(query.image for query in chosen.queries)
    assert sorted(counts.values()) == [4, 4, 4]
    single = every_prompt([Image.new("RGB", (8, 8))] * 2, ["what?"])
    assert about_same_images(single, 3, 4).queries == ()


def test_every_prompt_about_every_picture() -> None:
    pictures = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    asked = every_prompt(pictures, ["one?", "two?", "three?"])
    assert [(query.image, query.text) for query in asked.queries] == [
        (image, text) for image in range(2) for text in ("one?", "two?", "three?")
    ]
    assert [image() for image in asked.images] == pictures
    assert not asked.has_scenes and {query.answer for query in asked.queries} == {""}
    for pictures_given, prompts in (([], ["one?"]), (pictures, [])):
        with pytest.raises(ValueError, match="at least one picture and one prompt"):
            every_prompt(pictures_given, prompts)
