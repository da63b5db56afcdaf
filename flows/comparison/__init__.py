"""`gptmill compare` and `gptmill diff`: runs, models and snapshots side by side, for a terminal and as a page."""
