"""From questions and pictures to model inputs, and from outputs to answers."""
