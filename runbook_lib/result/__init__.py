"""The vectors: parts that came home, the merged files, and what one pass over them tells."""
