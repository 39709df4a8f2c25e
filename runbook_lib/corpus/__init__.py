"""Documents numbered once: what a row is, from whatever file they came in."""
