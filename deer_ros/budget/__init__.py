"""When to stop: agreement of successive exits, and what every part of a step costs."""
