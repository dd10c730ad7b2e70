"""Inside the vision tower: merging between its blocks, and what is seen there."""
