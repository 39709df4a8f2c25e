"""What is reported and archived: gates, outcome, report and archive."""
