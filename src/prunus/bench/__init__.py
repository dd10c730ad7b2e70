"""The clock: how long a pruned prompt takes beside a dense one, stage by stage."""
