"""Gathering a calibration: what the exits answer on demonstrations, and how far off they are."""
