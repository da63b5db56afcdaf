"""Vocabularies: one file for each kind that the tokenizer stage can train or take."""

END_OF_TEXT = "<|endoftext|>"
"""The name of the id that follows every document, in every vocabulary."""
