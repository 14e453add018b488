"""The backbone: a masked language model and its tokenizer, and all that knows how such a model is built."""
