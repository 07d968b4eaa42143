"""Bayesian optimisation of thresholds against rollouts."""
