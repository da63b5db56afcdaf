"""The data engine: plain functions over shards of documents, and the store that names what they make."""
