"""One file per promise; each has `run(job)`."""
