"""How each slot is doing: its states, verdicts and incidents."""
