"""Measures the mirror beside nginx and beside the upstream itself: ratios inside one interleaved run."""
