"""Hosts reached over SSH: from an entry of the profile to a verified connection."""
