"""Whole runs with one fault each, shaped by hand."""
