"""Seeded chaos: real processes, real files, faults at random moments, and a checker that shares no code with us."""
