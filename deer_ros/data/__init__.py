"""Episodes, and the bags they are kept in."""
