"""The result of a run: parts, merged files, figures, and the proof of them."""
