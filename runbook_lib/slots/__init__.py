"""What is the matter with a slot: its states, verdicts and incidents."""
