"""A comparison as one HTML page that needs nothing outside itself.

Everything is written into the one file: style, scripts, pictures, data. A policy in its head
forbids the browser any request. Questions, answers and names of methods are strangers' text: they
stand in the page as escaped JSON, and scripts put them on the screen as text, never as markup.

``pack`` makes the data small, ``plain`` the tables that can be read without scripts, ``build`` the
page of them; ``styles`` and ``scripts`` hold small files that are joined in the order of ``parts``.
"""

from prunus.compare.page.build import page_of, write_page

__all__ = ["page_of", "write_page"]
