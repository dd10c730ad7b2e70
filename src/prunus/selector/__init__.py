"""Stepwise token selection (arXiv 2606.16067): the learned selector and its training."""
