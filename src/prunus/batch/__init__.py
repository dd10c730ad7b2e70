"""Many rows of images and prompts, answered by several workers: every row once, whatever ends."""
