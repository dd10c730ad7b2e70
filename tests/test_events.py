"""Events in words and numbers, in the order in which data meets them."""

from __future__ import annotations

import torch

from prunus.results.events import by_layers, events_of, in_order, label_of
from tests.support.traces import EXIT, FILTER, GRID, entry, shallow


def test_all_three_stages() -> None:
    trace = [shallow(), FILTER, EXIT]
    found = events_of(trace)
    assert [event.facts() for event in found] == [
        {
            "method": "visipruner",
            "label": "filter",
            "layer_seen": 3,
            "removed_from_layer": 4,
            "kept": 2,
        },
        {
            "method": "visipruner",
            "label": "exit",
            "layer_seen": 8,
            "removed_from_layer": 9,
            "kept": 0,
        },
    ]
    assert [str(event) for event in found] == [
        "visipruner: filtering layer 3, 2 of 6 visual tokens stay, the others are gone from layer "
        "4 on",
        "visipruner: exit layer 8, 0 of 2 visual tokens stay, all are gone from layer 9 on",
    ]


def test_samples_of_a_batch_have_their_own_events() -> None:
    every = list(range(6))
    trace = [
        entry([[[1], [2]], [every]], ["forced", ""]),
        entry([[[1], [2]], [every]], ["", "filter"], layer=5),
        entry([[[], []], [every]], ["exit", ""], layer=7),
    ]
    first, second = events_of(trace, 0), events_of(trace, 1)
    assert [(e.label, e.before, e.kept) for e in first] == [("forced", 12, 2), ("exit", 2, 0)]
    assert "forced filtering layer 3" in str(first[0])
    assert [(e.label, e.before, e.kept) for e in second] == [("filter", 6, 6)]
    assert str(second[0]).endswith("6 of 6 visual tokens stay, nothing goes")
    assert [label_of(one, 0) for one in trace] == ["forced", "", "exit"]


def test_methods_that_are_told_what_to_do_have_none() -> None:
    assert events_of([]) == [] and events_of([shallow()]) == []
    told = entry([[0, 1]])
    assert label_of(told, 0) is None and events_of([told, shallow()]) == []
    early = entry([[0]], "chosen", layer=None, place="features")
    assert "chosen before the language model, 1 of 6" in str(events_of([early])[0])


def test_edits_stand_where_they_act() -> None:
    edits, tower = shallow(), entry([[0, 2, 4]], layer=None, place="encoder")
    late = shallow(edits={4: edits.edits[1]})
    late = type(late)(**{**vars(late), "layer": 4})
    first = entry([[0, 2]], layer=1)
    assert in_order([edits, late, tower, first, FILTER, EXIT]) == [
        tower,
        edits,
        first,
        FILTER,
        late,
        EXIT,
    ]
    assert in_order([edits]) == [edits]


def test_counts_by_layers() -> None:
    assert by_layers([576] * 4 + [12] * 5 + [0]) == "0-3: 576, 4-8: 12, 9: 0"
    assert by_layers([5.5]) == "0: 5.5" and by_layers([]) == ""
    assert GRID.size == 6 and torch.equal(FILTER.kept[0][0], torch.tensor([2, 3]))
