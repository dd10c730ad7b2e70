"""Selectors and calibrations as things to share: on the hub, each with a page of its own."""

from prunus.sharing.hub import from_pretrained, push_to_hub
from prunus.sharing.page import page_of, write_page
from prunus.sharing.parcel import Parcel, pack

__all__ = ["Parcel", "from_pretrained", "pack", "page_of", "push_to_hub", "write_page"]
