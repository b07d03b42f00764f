"""WORDS: the vocabulary every other layer speaks. The standard library and msgspec alone, no input or output."""
