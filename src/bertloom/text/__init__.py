"""Documents in, tokens out: sources, readers, sentences, vocabulary."""
