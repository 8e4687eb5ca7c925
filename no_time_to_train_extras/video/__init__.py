"""Objects in videos and live pictures: each once, with its identity."""
