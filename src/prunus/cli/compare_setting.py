"""What options of ``prunus compare`` ask for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prunus.builtin import BUILTIN, check_name
from prunus.cli.errors import BadInput

if TYPE_CHECKING:
    from prunus.compare.presets import Preset
    from prunus.compare.setting import RunSpec, Setting
    from prunus.method.budget import Meaning


def over(
    preset: Preset,
    keep: str | None,
    budget: str | None,
    seeds: int | None,
    limit: int | None,
    pictures: int | None,
) -> Preset:
    """``preset`` with what was said otherwise."""
    from prunus.cli.eval import listed
    from prunus.inference.params import parse_keep

    changes: dict[str, Any] = {}
    if keep is not None:
        changes["keeps"] = [parse_keep(text) for text in listed(keep, "--keep")]
    if budget is not None:
        meanings: dict[str, tuple[Meaning, ...]] = {
            "true": ("true",),
            "nominal": ("nominal",),
            "both": ("true", "nominal"),
        }
        if budget not in meanings:
            raise BadInput(f"--budget {budget!r}: choose true, nominal or both")
        changes["meanings"] = meanings[budget]
    if seeds is not None:
        changes["seeds"] = seeds
    if limit is not None:
        changes["limit"] = limit or None
    if pictures is not None:
        changes["pictures"] = pictures
    return replace(preset, **changes)


def setting_of(
    preset: Preset,
    models: str | None,
    data: str | None,
    methods: str | None,
    rival: str | None,
) -> Setting:
    """The setting: what is compared, without how it is run.

    Raises:
        BadInput: a wrong name, or a rival with which nothing can be compared.
    """
    from prunus.cli.eval import listed
    from prunus.compare.presets import methods_of
    from prunus.compare.setting import RunSpec, Setting
    from prunus.evaluate.cells import GROUND_TRUTH, cell_name, make_cells
    from prunus.inference.named import NONE
    from prunus.tasks.sets import BUILTIN_SETS, builtin_set_for

    names = listed(models, "--models") if models is not None else list(preset.models)
    runs: list[RunSpec] = []
    for name in names:
        check_name(name)
        sets = [builtin_set_for(name)] if data is None else listed(data, "--data")
        runs += [RunSpec(name, one) for one in sets]
    scenes = all(run.data in BUILTIN_SETS for run in runs)
    everything = replace(preset, methods=None)
    builtin = all(name in BUILTIN for name in names)
    chosen = methods_of(preset if methods != "all" else everything, scenes, builtin)
    if methods is not None and methods != "all":
        chosen = [_spelled(one) for one in listed(methods, "--methods")]
    if GROUND_TRUTH in chosen and not scenes:
        raise BadInput("ground-truth needs the scenes of the built-in questions: leave it out")
    # What is wrong is said at once.
    budgets = {one.name: one.keep for one in make_cells(chosen, preset.keeps, range(preset.seeds))}
    if rival not in (None, NONE):
        called = {one: cell_name(one) for one in chosen}
        rival = _spelled(rival)
        name = called.get(rival, rival)
        if name not in called.values():
            raise BadInput(f"--rival {rival!r} is none of the methods: add it to --methods")
        if budgets[name] is None:
            raise BadInput(
                f"--rival {rival!r} has no budget at which others could be compared with it: name "
                "a method that takes --keep"
            )
        rival = name
    return Setting(
        tuple(runs),
        tuple(chosen),
        tuple(preset.keeps),
        tuple(preset.meanings),
        tuple(range(preset.seeds)),
        preset.rival if rival is None else rival if rival != NONE else None,
        preset.limit,
        pictures=preset.pictures,
    )


def _spelled(name: str) -> str:
    """A method or control as it is spelled, which is what results are found by."""
    from prunus.evaluate.cells import BLIND, GROUND_TRUTH, OTHER
    from prunus.inference.named import as_spelled
    from prunus.method.registry import spelled

    return as_spelled(spelled(name, (GROUND_TRUTH, BLIND, OTHER)))


def device_of(device: str) -> str:
    """The device that is meant by ``device``: with "auto" a GPU if there is one."""
    import torch

    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def workers_on(device: str) -> int:
    """How many processes ask on ``device``, if nobody says so."""
    from prunus.compare.comparing import cores

    return cores() if device == "cpu" else 1
