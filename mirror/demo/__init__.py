"""The newcomer's first minute: a small registry, a model made up on the spot, and a client as picky as Ollama.

A folder of its own that may use every room; nothing but commands, tests and the bench uses it.
"""
