"""How the built-in models are made and trained."""
