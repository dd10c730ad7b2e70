"""Training of the learned selector: data, schedules, and the loop that can stop and go on."""
