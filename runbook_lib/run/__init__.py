"""One execution: a folder with its plan, its journal and its checks."""
