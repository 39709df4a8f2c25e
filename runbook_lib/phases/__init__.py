"""The work, in the order of the notebooks: preflight to backup."""
