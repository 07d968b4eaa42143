"""What stands between a policy and a robot: when a step starts, what it commands, what stops it."""
