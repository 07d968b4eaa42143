"""The policy over recorded bags, in lockstep, and what is said of such a run."""
