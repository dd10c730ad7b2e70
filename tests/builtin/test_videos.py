"""Videos are drawn as their data says, and every answer about them is checked by a slow reader
that knows nothing but where each object is in each frame."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from prunus.tasks.digits import split_indices
from prunus.tasks.evalset.videos import VideoItem, build_video_evalset, load_video_evalset
from prunus.tasks.questions import Question
from prunus.tasks.scenes import CANVAS, Scene, SceneObject, make_scene, object_coverage
from prunus.tasks.video_questions import VIDEO_TYPES, ask_many_video, ask_video
from prunus.tasks.videos import (
    FRAMES,
    VIDEO_CANVAS,
    Actor,
    VideoScene,
    actor_coverage,
    make_video,
    render_frames,
    render_video,
)

COUNTS = ["zero", "one", "two", "three", "four"]
Path = list[tuple[int, int] | None]


def paths(video: VideoScene) -> list[Path]:
    return [[item.corner(frame) for frame in range(FRAMES)] for item in video.objects]


def fits(item: Actor, phrase: str) -> bool:
    facts = {item.kind, item.color, "object", *([] if item.digit is None else [str(item.digit)])}
    return set(phrase.split()) <= facts


def only(video: VideoScene, phrase: str) -> int:
    found = [index for index, item in enumerate(video.objects) if fits(item, phrase)]
    assert len(found) == 1, f"{phrase!r} is ambiguous"
    return found[0]


def does(path: Path, verb: str) -> bool:
    seen = [corner for corner in path if corner is not None]
    if verb == "move":
        return len(set(seen)) > 1
    return path[0] is None if verb == "appear" else path[-1] is None


def moment(path: Path, verb: str) -> int:
    present = [frame for frame, corner in enumerate(path) if corner is not None]
    assert does(path, verb)
    return present[0] if verb == "appear" else present[-1] + 1


def way(path: Path) -> str:
    first, *_, last = [corner for corner in path if corner is not None]
    right, down = last[0] - first[0], last[1] - first[1]
    assert not (right and down)
    if right:
        return "rightward" if right > 0 else "leftward"
    return "still" if not down else "downward" if down > 0 else "upward"


def described(video: VideoScene, phrase: str) -> int:
    """The object of ``object that ...``, or of a plain phrase."""
    match = re.fullmatch(r"object that (\w+)s( still| first| last)?", phrase)
    if match is None:
        return only(video, phrase)
    all_paths = paths(video)
    verb, more = match[1], (match[2] or "").strip()
    if verb == "stand":
        found = [i for i, path in enumerate(all_paths) if way(path) == "still"]
    else:
        found = [i for i, path in enumerate(all_paths) if does(path, verb)]
    if more in ("first", "last"):
        times = [moment(all_paths[i], verb) for i in found]
        best = min(times) if more == "first" else max(times)
        found = [i for i, time in zip(found, times, strict=True) if time == best]
    assert len(found) == 1, f"{phrase!r} is ambiguous"
    return found[0]


def check(video: VideoScene, question: Question) -> None:
    text, answer, all_paths = question.text, question.answer, paths(video)
    if match := re.fullmatch(r"is there a (.+)\?", text):
        assert answer == ("yes" if any(fits(o, match[1]) for o in video.objects) else "no")
    elif match := re.fullmatch(r"does the (.+) (move|appear|disappear)\?", text):
        true = does(all_paths[only(video, match[1])], match[2])
        assert answer == ("yes" if true else "no")
    elif match := re.fullmatch(r"which way does the (.+) move\?", text):
        assert answer == way(all_paths[only(video, match[1])])
    elif match := re.fullmatch(
        r"which (appear|disappear)s (first|last), the (.+) or the (.+)\?", text
    ):
        times = {p: moment(all_paths[only(video, p)], match[1]) for p in (match[3], match[4])}
        assert len(set(times.values())) == 2
        best = min if match[2] == "first" else max
        assert answer == best(times, key=lambda phrase: times[phrase])
    elif match := re.fullmatch(r"does the (.+) (\w+) before the (.+) (appear|disappear)s\?", text):
        one = moment(all_paths[only(video, match[1])], match[2])
        two = moment(all_paths[only(video, match[3])], match[4])
        assert one != two and answer == ("yes" if one < two else "no")
    elif match := re.fullmatch(r"how many objects (.+)\?", text):
        told = {
            "are there in all": len(all_paths),
            "are there at the start": sum(path[0] is not None for path in all_paths),
            "are there at the end": sum(path[-1] is not None for path in all_paths),
            "stand still": sum(way(path) == "still" for path in all_paths),
        }
        count = told.get(match[1])
        if count is None:
            count = sum(does(path, match[1]) for path in all_paths)
        assert answer == COUNTS[count]
    elif match := re.fullmatch(r"what (color|shape) is the (.+)\?", text):
        item = video.objects[described(video, match[2])]
        assert answer == (item.color if match[1] == "color" else item.kind)
    else:
        pytest.fail(f"cannot read {text!r}")


@pytest.mark.parametrize("kind", VIDEO_TYPES)
def test_answers_are_true_and_unambiguous(kind: str) -> None:
    rng = np.random.default_rng(0)
    asked = Counter[str]()
    for seed in range(400):
        video = make_video(seed)
        question = ask_video(video, kind, rng)
        if question is not None:
            check(video, question)
            asked[question.answer] += 1
    assert sum(asked.values()) > 60
    shares = np.array(list(asked.values())) / sum(asked.values())
    assert shares.max() < 0.62


def test_unknown_types_are_refused() -> None:
    with pytest.raises(ValueError, match="motion"):
        ask_video(make_video(0), "smell", np.random.default_rng(0))


def test_the_fixed_set_is_what_the_code_draws_true_even_and_unseen() -> None:
    items = load_video_evalset()
    assert items == build_video_evalset()
    allowed = set(split_indices("test").tolist())
    for item in items:
        assert VideoItem.from_json(item.to_json()) == item
        assert {o.digit_id for o in item.scene.objects if o.kind == "digit"} <= allowed
        for question in item.questions:
            check(item.scene, question)
    types = Counter(question.type for item in items for question in item.questions)
    assert set(types) == set(VIDEO_TYPES) and len(set(types.values())) == 1
    assert sum(types.values()) >= 600 and len(items) >= 100


def test_the_same_seed_gives_the_same_video() -> None:
    for seed in range(20):
        video = make_video(seed)
        assert make_video(seed) == video
        assert VideoScene.from_json(video.to_json()) == video
        assert ask_many_video(video, 6, seed) == ask_many_video(video, 6, seed)
    assert make_video(1) != make_video(2)
    frames = render_frames(make_video(3))
    assert frames.shape == (FRAMES, VIDEO_CANVAS, VIDEO_CANVAS, 3) and frames.dtype == np.uint8
    assert (frames == render_frames(make_video(3))).all()
    assert [f.size for f in render_video(make_video(3), 96)] == [(96, 96)] * FRAMES


def test_objects_are_drawn_where_they_are_and_nowhere_else() -> None:
    for seed in range(12):
        video = make_video(seed, objects=(2, 4))
        last = len(video.objects) - 1  # the shade of an object depends on those before it
        changed = render_frames(video) != render_frames(replace(video, objects=video.objects[:-1]))
        for frame, corner in enumerate(paths(video)[last]):
            rows, cols, _ = np.nonzero(changed[frame])
            if corner is None:
                assert not rows.size
                continue
            (x, y), side = corner, video.objects[last].size
            assert rows.size > side * side / 4
            assert y <= rows.min() and rows.max() < y + side
            assert x <= cols.min() and cols.max() < x + side


def test_paths_stay_inside_and_never_cross() -> None:
    for seed in range(60):
        video = make_video(seed, objects=(4, 6))
        used = np.zeros((len(video.objects), VIDEO_CANVAS, VIDEO_CANVAS), dtype=bool)
        for index, path in enumerate(paths(video)):
            side = video.objects[index].size
            for corner in path:
                if corner is not None:
                    x, y = corner
                    assert 0 <= x <= VIDEO_CANVAS - side and 0 <= y <= VIDEO_CANVAS - side
                    used[index, y : y + side, x : x + side] = True
        assert used.sum(axis=0).max() <= 1


def test_coverage_on_any_grid_is_that_of_single_pixels() -> None:
    # tokens of 192 / 14 pixels, against the mean of a picture enlarged by 14
    scene = Scene(
        0, (SceneObject("star", "red", 30, 41, 23), SceneObject("ring", "blue", 100, 7, 16))
    )
    exact = object_coverage(scene, CANVAS, CANVAS)
    large = exact.repeat(14, axis=1).repeat(14, axis=2)
    expected = large.reshape(2, 14, CANVAS, 14, CANVAS).mean(axis=(2, 4))
    np.testing.assert_allclose(object_coverage(scene, 14, 14), expected, atol=1e-5)
    assert object_coverage(Scene(0, ()), 14, 14).shape == (0, 14, 14)
    scene = make_scene(4)
    cells = object_coverage(scene, 14, 18).sum(axis=(1, 2)) / (14 * 18)
    whole = object_coverage(scene, 24, 24).sum(axis=(1, 2)) / 576
    np.testing.assert_allclose(cells, whole, rtol=1e-4)


def test_coverage_of_a_video_follows_its_objects() -> None:
    item = Actor("square", "red", 0, 32, 16, dx=8, start=2, end=6)
    cover = actor_coverage(VideoScene(0, (item,)), 8, 8)
    assert cover.shape == (1, 4, 8, 8)
    assert not cover[0, 0].any() and not cover[0, 3].any()
    assert sorted(set(np.nonzero(cover[0, 1])[0])) == [2]  # row 32 to 48 is the third of 16 px
    assert set(np.nonzero(cover[0, 1])[1]) == {0, 1}  # at 0 and at 8
    assert set(np.nonzero(cover[0, 2])[1]) == {1, 2}  # at 16 and at 24
