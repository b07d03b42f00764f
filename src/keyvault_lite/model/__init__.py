"""WORDS: the vocabulary every other layer speaks. Standard library only, no input or output."""
