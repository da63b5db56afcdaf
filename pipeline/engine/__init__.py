"""The engine under every stage: keys, code versions, the artifact store, locks and the shard executor.

Nothing in here shapes a stage's bytes, so none of it enters a key; tests hold it with golden bytes instead.
"""
