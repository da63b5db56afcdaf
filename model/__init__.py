"""The GPT: architecture, training, generation, evaluation; it knows no orchestration and no crawling."""
