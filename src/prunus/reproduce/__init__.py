"""Tables of papers, measured again: published beside measured, one command for each."""
