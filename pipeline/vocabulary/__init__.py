"""Vocabularies: one file for each kind that the tokenizer stage can train or take."""
