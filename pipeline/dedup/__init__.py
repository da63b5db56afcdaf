"""The parts of deduplication: documents in the rule's `order`, `buckets` of bands, `matches` of documents in them.

`kernels` does the work on arrays, `reference` is the plain rule that it must equal, `stats` tells of what was found.
"""
