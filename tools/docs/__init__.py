"""What `make docs` writes before the site is built."""
