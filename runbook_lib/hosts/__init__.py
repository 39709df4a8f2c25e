"""Where it runs: what a host is asked, what came back, and the ways to reach it."""
