"""What a run leaves behind: trace, report, events, statistics."""
