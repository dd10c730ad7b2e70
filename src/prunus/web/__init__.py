"""A page on which methods are tried, in a browser: ``prunus web``. What needs Gradio is in
``page.py``, ``look.py`` and ``serve.py`` alone."""
