"""The formats a corpus may come in, each read in constant memory and refused by row."""
