"""The client of the native API as a library: it imports nothing of the server but a few words of the model."""
