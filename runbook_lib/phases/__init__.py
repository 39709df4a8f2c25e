"""What is done, in the order of the notebooks: preflight to backup."""
