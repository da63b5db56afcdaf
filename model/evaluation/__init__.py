"""What a model is worth: losses, benchmark tasks, baselines, memorisation."""
