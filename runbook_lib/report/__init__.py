"""What is told and kept afterwards: gates, outcome, report and archive."""
