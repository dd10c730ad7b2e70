"""What is proved for every decoder of :mod:`tests.support.decoders`, as largest errors by name.

The engine runs on the backend given, the oracle on the unmodified model with eager attention.
Errors of attention rows and cosines are absolute; those of logits, norms and changes are relative
to the largest that was expected.
"""
