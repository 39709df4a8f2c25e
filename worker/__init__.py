"""What travels to a GPU host: encode a shard part by part (`python -m worker encode`), and supervise the slots of a
host (`python -m worker supervise`). Runs on Python 3.9 and later; imports nothing of runbook_lib.
"""
