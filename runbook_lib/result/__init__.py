"""What came of it: parts, merged files, figures, and what proves them."""
