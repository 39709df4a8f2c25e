"""What a finished run is good for: its vectors loaded, searched, and written in the formats of other tools."""
