"""Text from a model: sampling, batches, streaming."""
