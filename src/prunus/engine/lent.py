"""Attention modules get a configuration on loan, so that transformers looks us up when it looks for
the model's attention function.

transformers finds that function by a name in the module's configuration. A lent configuration says
the true name in an instance of a class of its own: equal to the true name wherever a module
compares or prints it, but with another hash, under which our function stands in the registry. The
model's own configuration, which masks are made by, is never touched; what is changed in it while
the loan lasts (``set_attn_implementation``) is followed.

Every attention module gets a lent configuration, also where nothing is looked at: a model that was
compiled before notices it and looks for hooks again.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn
from transformers import AttentionInterface

from prunus.engine.attention import own_attention
from prunus.engine.hooks import SHARED, modules_in
from prunus.errors import PrunusStateError


class _Name(str):
    """Equal to a name of transformers, but another key."""

    __slots__ = ()

    def __hash__(self) -> int:
        return hash(("prunus", str(self)))

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not str.__eq__(self, other)

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)


_NAMES: dict[str, _Name] = {}


class Loan:
    """What a lent configuration carries.

    Args:
        owner: the engine.
        original: the module's own configuration.
        attend: stands in for the model's attention function; None where nobody looks.
    """

    def __init__(self, owner: object, original: Any, attend: Callable[..., Any] | None) -> None:
        self.owner, self.original, self.attend = owner, original, attend


def lend(
    owner: object, module: Any, attend: Callable[..., Any] | None, made: dict[Any, Any]
) -> Any:
    """The configuration of ``module`` on loan, to be put into its place; ``made`` are the loans of
    the same engine, which modules share that share a configuration.

    Raises:
        PrunusStateError: another engine lent it one.
    """
    before = loan_of(module.config)
    if before is not None and before.owner is not owner:
        raise PrunusStateError(SHARED)
    key = (id(module.config), attend is None)
    if key not in made:
        made[key] = _borrowed(Loan(owner, module.config, attend))
    return made[key]


def give_back(model: nn.Module, owner: object) -> None:
    """Give every module of ``model`` that holds a configuration lent by ``owner`` its own back."""
    for module, loan in _loans(model):
        if loan.owner is owner:
            module.config = loan.original


def loan_of(config: Any) -> Loan | None:
    """The loan behind a lent configuration; None for any other."""
    return getattr(type(config), "_prunus_loan", None)


def _loans(model: nn.Module) -> Iterator[tuple[Any, Loan]]:
    for module in modules_in(model):
        config = module.__dict__.get("config")
        loan = None if config is None else loan_of(config)
        if loan is not None:
            yield module, loan


class _Borrowed:
    """In front of a configuration's own class, whose ``__init_subclass__`` would make each loan a
    dataclass anew, field by field: milliseconds in every block."""

    def __init_subclass__(cls) -> None:
        pass


def _borrowed(loan: Loan) -> Any:
    original = loan.original

    own = type(original)

    def implementation(self: Any) -> Any:
        name = own._attn_implementation.fget(self)
        return None if name is None else _NAMES.get(name) or _registered(str(name))

    def set_implementation(self: Any, value: Any) -> None:
        original._attn_implementation = value

    def deepcopy(self: Any, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(original, memo)

    def reduce(self: Any, protocol: Any) -> Any:  # to the configuration itself, without us
        return operator.getitem, ((original,), 0)

    # Where nobody looks there is nothing to say.
    looking = {"_attn_implementation": property(implementation, set_implementation)}
    # A class for every loan: code that was compiled while another engine lent is not used again.
    kind: Any = type(
        own.__name__,
        (_Borrowed, own),
        {
            **(looking if loan.attend is not None else {}),
            "_prunus_loan": loan,
            "__deepcopy__": deepcopy,
            "__reduce_ex__": reduce,
            "__module__": own.__module__,
            "__qualname__": own.__qualname__,
        },
    )
    config = object.__new__(kind)
    object.__setattr__(config, "__dict__", original.__dict__)  # one dictionary: nothing goes stale
    return config


def _registered(name: str) -> _Name:
    """``name`` as the key under which transformers finds us."""
    if name not in _NAMES:
        ours = _Name(name)
        AttentionInterface.register(ours, _attend)
        _NAMES[name] = ours
    return _NAMES[name]


def _attend(module: Any, *args: Any, **kwargs: Any) -> Any:
    """What transformers calls instead of the model's attention function."""
    loan = loan_of(module.config)
    if loan is None or loan.attend is None:  # given back since transformers looked us up
        own = own_attention(str(module.config._attn_implementation), module)
        return own(module, *args, **kwargs)
    return loan.attend(module, *args, **kwargs)
