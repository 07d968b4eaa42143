"""The parts of the player node."""
