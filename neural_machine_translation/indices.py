"""Indices of the special words; apart from model.py because reader processes must not import paddle."""

BOS, EOS, UNK = 0, 1, 2
"""`<s>`, `<e>` and `<unk>`, the first lines of every vocabulary. Sentences are padded with `<e>`."""
