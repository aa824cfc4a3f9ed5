"""A mirror under everything at once, for as long as one likes: ``python -m bench.soak``, which ``make soak`` runs."""
