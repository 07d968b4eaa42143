"""The DeeR method of training: every exit learns, and one shared head learns all exits at once."""
