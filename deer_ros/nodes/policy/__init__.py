"""The parts of the policy node."""
