"""The runbook's library: what the notebooks and the command line `runbook` call. One idea per file."""
